//! What the task metadata endpoint (version 4) of ECS says.

use serde::Deserialize;

use super::LoadError;

/// The limits of an ECS task, from the answer of `${ECS_CONTAINER_METADATA_URI_V4}/task`.
///
/// The limit of a task is that of all its containers together, and the control group of a single container does not
/// show it. Fetch the document with the HTTP client of your choice when the process starts, and hand what it says to
/// [`HostLoad::with_cpus`](super::HostLoad::with_cpus).
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct EcsTask {
    /// How many CPUs the task may use; none if it has no limit.
    pub cpus: Option<f64>,
}

#[derive(Deserialize)]
struct Document {
    #[serde(rename = "Limits")]
    limits: Option<Limits>,
}

#[derive(Deserialize)]
struct Limits {
    #[serde(rename = "CPU")]
    cpu: Option<f64>,
}

impl EcsTask {
    /// Reads the document.
    ///
    /// # Errors
    /// If it is not what the endpoint answers.
    pub fn parse(json: &str) -> Result<Self, LoadError> {
        let document: Document =
            serde_json::from_str(json).map_err(|_| LoadError::new("the task metadata", json))?;
        let cpus = document.limits.and_then(|limits| limits.cpu).filter(|cpus| *cpus > 0.0);
        Ok(Self { cpus })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_the_task_is_read() {
        let json = r#"{"Cluster":"default","TaskARN":"arn:aws:ecs:us-west-2:111122223333:task/default/158d",
            "Limits":{"CPU":0.25,"Memory":512},"Containers":[{"Limits":{"CPU":10,"Memory":0}}]}"#;
        assert_eq!(EcsTask::parse(json), Ok(EcsTask { cpus: Some(0.25) }));
        assert_eq!(EcsTask::parse(r#"{"Cluster":"default"}"#), Ok(EcsTask { cpus: None }));
        assert!(EcsTask::parse("<html>").is_err());
    }
}
