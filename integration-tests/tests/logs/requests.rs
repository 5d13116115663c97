//! What AWS says no to can be looked up by AWS: errors name the request.

use integration_tests::aws::Aws;
use kcl_local::faults::{Fault, Rule, Seen, errors};
use kcl_local::wire::Service;

#[tokio::test(start_paused = true)]
async fn errors_of_both_services_name_the_request() {
    for (service, operation) in
        [(Service::DynamoDb, "DescribeTable"), (Service::Kinesis, "DescribeStreamSummary")]
    {
        let aws = Aws::in_process().with_stream(1);
        aws.faults.add(Rule::on(service, operation, Fault::Fail(Seen::Error(errors::access_denied()))));
        let error = aws.builder().build().unwrap().run().await.unwrap_err().to_string();
        assert!(error.contains(operation) && error.contains("request id ffffffff-0000"), "{error}");
    }
}
