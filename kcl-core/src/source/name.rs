//! A stream's name or ARN, as the user gives it.

/// A checked name or ARN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StreamName {
    Name(String),
    Arn { arn: String, name: String },
}

impl StreamName {
    /// Reads `arn:<partition>:kinesis:<region>:<account>:stream/<name>` or `<name>`.
    ///
    /// # Errors
    /// What is wrong with the text, in words.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let Some(rest) = text.strip_prefix("arn:") else {
            check_name(text)?;
            return Ok(Self::Name(text.to_owned()));
        };
        let form = "a stream's ARN has the form arn:<partition>:kinesis:<region>:<account>:stream/<name>";
        let parts: Vec<&str> = rest.splitn(5, ':').collect();
        let [partition, service, region, account, resource] = parts[..] else {
            return Err(format!("{text:?} is not an ARN of a stream: {form}"));
        };
        let Some(name) = resource.strip_prefix("stream/").filter(|_| service == "kinesis") else {
            return Err(format!("{text:?} is the ARN of something else than a stream: {form}"));
        };
        if name.contains('/') {
            return Err(format!("{text:?} is the ARN of a part of a stream (a consumer?): {form}"));
        }
        if partition.is_empty() || region.is_empty() || account.is_empty() {
            return Err(format!("{text:?} lacks the partition, region or account: {form}"));
        }
        check_name(name)?;
        Ok(Self::Arn { arn: text.to_owned(), name: name.to_owned() })
    }

    #[cfg(any(test, feature = "kinesis"))]
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Name(name) | Self::Arn { name, .. } => name,
        }
    }

    pub(crate) fn arn(&self) -> Option<&str> {
        match self {
            Self::Name(_) => None,
            Self::Arn { arn, .. } => Some(arn),
        }
    }
}

/// The constraints of the API on `StreamName`.
fn check_name(name: &str) -> Result<(), String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    if (1..=128).contains(&name.len()) && name.bytes().all(allowed) {
        return Ok(());
    }
    let shown: String = name.chars().take(140).collect();
    Err(format!("{shown:?} is not a stream's name: 1 to 128 characters of a-z, A-Z, 0-9, '_', '.' and '-'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_arns_of_all_partitions_are_told_apart() {
        assert_eq!(StreamName::parse("orders-1.x_y"), Ok(StreamName::Name("orders-1.x_y".into())));
        for partition in ["aws", "aws-cn", "aws-us-gov"] {
            let arn = format!("arn:{partition}:kinesis:eu-west-1:123456789012:stream/orders");
            let parsed = StreamName::parse(&arn).unwrap();
            assert_eq!((parsed.arn(), parsed.name()), (Some(arn.as_str()), "orders"));
        }
    }

    #[test]
    fn what_is_no_stream_is_refused_with_the_reason() {
        for (text, reason) in [
            ("", "not a stream's name"),
            ("a stream", "not a stream's name"),
            (&"x".repeat(129), "not a stream's name"),
            ("arn:aws:kinesis", "form"),
            ("arn:aws:dynamodb:eu-west-1:123456789012:table/orders", "something else"),
            ("arn:aws:kinesis:eu-west-1:123456789012:stream/", "not a stream's name"),
            ("arn:aws:kinesis::123456789012:stream/orders", "lacks"),
            ("arn:aws:kinesis:eu-west-1:123456789012:stream/orders/consumer/app:1", "a part of a stream"),
        ] {
            let error = StreamName::parse(text).unwrap_err();
            assert!(error.contains(reason), "{text:?}: {error}");
        }
    }
}
