//! Starting, stopping and sharing the local services.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a broken expectation ends the test")]

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::error::SdkError;
use kcl_local::LocalAws;
use kcl_local::client::PlainHttpClient;
use kcl_local::clock::ManualClock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

fn client_without_retries(aws: &LocalAws) -> Client {
    let config = aws_sdk_dynamodb::config::Builder::from(&aws.sdk_config());
    Client::from_conf(config.retry_config(RetryConfig::disabled()).build())
}

#[tokio::test]
async fn the_port_refuses_connections_after_the_drop() {
    let aws = LocalAws::start().await.unwrap();
    let port = aws.port().unwrap();
    let client = client_without_retries(&aws);
    client.list_tables().send().await.unwrap();
    drop(aws);
    assert!(TcpStream::connect(("127.0.0.1", port)).await.is_err());
    let error = client.list_tables().send().await.unwrap_err();
    assert!(matches!(&error, SdkError::DispatchFailure(failure) if failure.is_io()), "{error:?}");
}

#[tokio::test]
async fn a_port_in_use_is_an_error() {
    let aws = LocalAws::start().await.unwrap();
    let second = LocalAws::builder().port(aws.port().unwrap()).start().await;
    assert!(second.is_err());
}

#[tokio::test]
async fn two_instances_know_nothing_of_each_other() {
    let (one, other) = (LocalAws::start().await.unwrap(), LocalAws::in_process().unwrap());
    let (one_db, other_db) = (client_without_retries(&one), client_without_retries(&other));
    let create = one_db.create_table().table_name("leases");
    let create = create.key_schema(
        aws_sdk_dynamodb::types::KeySchemaElement::builder()
            .attribute_name("id")
            .key_type(aws_sdk_dynamodb::types::KeyType::Hash)
            .build()
            .unwrap(),
    );
    let create = create.attribute_definitions(
        aws_sdk_dynamodb::types::AttributeDefinition::builder()
            .attribute_name("id")
            .attribute_type(aws_sdk_dynamodb::types::ScalarAttributeType::S)
            .build()
            .unwrap(),
    );
    create.billing_mode(aws_sdk_dynamodb::types::BillingMode::PayPerRequest).send().await.unwrap();
    assert_eq!(one_db.list_tables().send().await.unwrap().table_names(), ["leases"]);
    assert!(other_db.list_tables().send().await.unwrap().table_names().is_empty());
}

#[tokio::test]
async fn an_in_process_client_outlives_its_owner() {
    let client = client_without_retries(&LocalAws::in_process().unwrap());
    assert!(client.list_tables().send().await.unwrap().table_names().is_empty());
}

#[test]
fn a_client_works_in_one_runtime_after_the_other() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let first = runtime();
    let aws = first.block_on(LocalAws::start()).unwrap();
    let client = client_without_retries(&aws);
    first.block_on(client.list_tables().send()).unwrap();
    drop(first);
    runtime().block_on(client.list_tables().send()).unwrap();
}

#[tokio::test]
async fn the_services_run_on_the_clock_that_is_given() {
    let clock = Arc::new(ManualClock::new(UNIX_EPOCH + Duration::from_secs(1_000)));
    let aws = LocalAws::builder().clock(Arc::<ManualClock>::clone(&clock)).in_process().unwrap();
    clock.advance(Duration::from_secs(5));
    assert_eq!(aws.kinesis().clock().now(), UNIX_EPOCH + Duration::from_secs(1_005));
}

#[tokio::test]
async fn a_client_sends_one_request_after_the_other_on_one_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let mut server = JoinSet::new();
    server.spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        // From here on a second connection is refused.
        drop(listener);
        for _ in 0..3 {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n{}") {
                assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0, "the client hung up");
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").await.unwrap();
        }
    });
    let aws = LocalAws::in_process().unwrap();
    let config = aws_sdk_dynamodb::config::Builder::from(&aws.sdk_config());
    let config = config.retry_config(RetryConfig::disabled()).endpoint_url(endpoint);
    let client = Client::from_conf(config.http_client(PlainHttpClient::new()).build());
    for _ in 0..3 {
        client.list_tables().send().await.unwrap();
    }
    server.join_next().await.unwrap().unwrap();
}

/// Speaks HTTP by hand, as a client in any language might.
async fn raw(aws: &LocalAws, requests: &[String]) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", aws.port().unwrap())).await.unwrap();
    for request in requests {
        stream.write_all(request.as_bytes()).await.unwrap();
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

fn post(target: &str, content_type: &str, body: &str, connection: &str) -> String {
    format!(
        "POST / HTTP/1.1\r\nHost: local\r\nConnection: {connection}\r\nX-Amz-Target: {target}\r\n\
         Content-Type: {content_type}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn a_connection_serves_several_requests_and_each_answer_has_its_id() {
    let aws = LocalAws::start().await.unwrap();
    let json = "application/x-amz-json-1.0";
    let list = |connection| post("DynamoDB_20120810.ListTables", json, "{}", connection);
    let answer = raw(&aws, &[list("keep-alive"), list("close")]).await;
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 2, "{answer}");
    assert_eq!(answer.matches(r#"{"TableNames":[]}"#).count(), 2, "{answer}");
    assert!(answer.contains("x-amzn-requestid: 00000000-0000-4000-8000-000000000001"), "{answer}");
    assert!(answer.contains("x-amzn-requestid: 00000000-0000-4000-8000-000000000002"), "{answer}");
}

#[tokio::test]
async fn what_is_not_served_gets_an_error_in_the_services_shape() {
    let aws = LocalAws::start().await.unwrap();
    let json = "application/x-amz-json-1.1";
    for target in ["AmazonSSM.GetParameter", "DynamoDB_20120810.Dance", "Kinesis_20131202.Dance"] {
        let answer = raw(&aws, &[post(target, json, "{}", "close")]).await;
        assert!(answer.starts_with("HTTP/1.1 400 Bad Request"), "{answer}");
        assert!(answer.contains("UnknownOperationException\""), "{answer}");
    }
    let cbor = post("Kinesis_20131202.ListStreams", "application/x-amz-cbor-1.1", "", "close");
    let answer = raw(&aws, &[cbor]).await;
    assert!(answer.contains("aws.cborEnabled=false"), "{answer}");
}

#[tokio::test]
async fn a_request_beyond_the_limit_is_refused_and_one_of_twelve_mebibytes_is_read() {
    let aws = LocalAws::start().await.unwrap();
    let put = |length: usize| {
        let body = format!(r#"{{"TableName":"{}"}}"#, "x".repeat(length));
        post("DynamoDB_20120810.DescribeTable", "application/x-amz-json-1.0", &body, "close")
    };
    let answer = raw(&aws, &[put(12 * 1024 * 1024)]).await;
    assert!(answer.contains("at most 255 characters long"), "{answer}");

    let head = "POST / HTTP/1.1\r\nHost: local\r\nConnection: close\r\nContent-Length: 17000000\r\n\r\n";
    let answer = raw(&aws, &[head.to_owned() + &"x".repeat(16 * 1024 * 1024 + 1)]).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}
