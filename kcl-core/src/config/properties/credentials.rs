//! Java's credentials providers, and what stands for them here.

const DEFAULT: &str = "nothing: the SDK's default chain (aws_config::load_from_env)";
const CHAIN: &str = "the default chain asks it, too";
const PROFILE: &str = "AWS_PROFILE, or profile_name of the aws_config loader";
const ROLE: &str = "a profile with role_arn, or aws_config::sts::AssumeRoleProvider";
const STATIC: &str = "keys do not belong into a file of settings: use a profile or a role";
const NONE: &str = "no_credentials of the aws_config loader";
const PROCESS: &str = "a profile with credential_process";

/// The providers of the SDKs for Java, versions 2 and 1, by their class names.
const PROVIDERS: &[(&str, &str)] = &[
    ("DefaultCredentialsProvider", DEFAULT),
    ("DefaultAWSCredentialsProviderChain", DEFAULT),
    ("AwsCredentialsProviderChain", DEFAULT),
    ("AWSCredentialsProviderChain", DEFAULT),
    ("EnvironmentVariableCredentialsProvider", CHAIN),
    ("ContainerCredentialsProvider", CHAIN),
    ("EC2ContainerCredentialsProviderWrapper", CHAIN),
    ("InstanceProfileCredentialsProvider", CHAIN),
    ("WebIdentityTokenFileCredentialsProvider", CHAIN),
    ("WebIdentityTokenCredentialsProvider", CHAIN),
    ("SystemPropertyCredentialsProvider", "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment"),
    ("SystemPropertiesCredentialsProvider", "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment"),
    ("ProfileCredentialsProvider", PROFILE),
    ("ProcessCredentialsProvider", PROCESS),
    ("StsAssumeRoleCredentialsProvider", ROLE),
    ("KclStsAssumeRoleCredentialsProvider", ROLE),
    ("KclSTSAssumeRoleSessionCredentialsProvider", ROLE),
    ("STSAssumeRoleSessionCredentialsProvider", ROLE),
    ("StaticCredentialsProvider", STATIC),
    ("AWSStaticCredentialsProvider", STATIC),
    ("PropertiesFileCredentialsProvider", STATIC),
    ("ClasspathPropertiesFileCredentialsProvider", STATIC),
    ("AnonymousCredentialsProvider", NONE),
    ("AnonymousAWSCredentials", NONE),
];

/// What to do instead of a value of `AwsCredentialsProvider`. Names classes, and never their arguments, which may be
/// secrets.
pub(super) fn instead(value: &str) -> String {
    let advice = value.split(',').map(str::trim).filter(|provider| !provider.is_empty()).map(|provider| {
        let class = provider.split('|').next().unwrap_or_default().trim();
        let class = class.rsplit('.').next().unwrap_or_default();
        match PROVIDERS.iter().find(|(name, _)| *name == class) {
            Some((name, advice)) => format!("for {name}: {advice}"),
            None => "for a provider of your own: implement ProvideCredentials and give it to the aws_config loader"
                .to_owned(),
        }
    });
    let advice: Vec<_> = advice.collect();
    if advice.is_empty() { "the SDK's default chain".to_owned() } else { advice.join("; ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_both_sdks_are_known_and_arguments_are_never_shown() {
        for (name, advice) in PROVIDERS {
            assert_eq!(instead(name), format!("for {name}: {advice}"));
        }
        let text = instead(
            "com.amazonaws.auth.DefaultAWSCredentialsProviderChain, StaticCredentialsProvider|AKIA|s3cret, my.Own|x",
        );
        assert!(
            text.contains("default chain") && text.contains("do not belong") && text.contains("of your own")
        );
        assert!(!text.contains("AKIA") && !text.contains("s3cret") && !text.contains("my.Own"), "{text}");
    }
}
