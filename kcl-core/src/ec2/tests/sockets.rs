//! The same over loopback, for what only the wire can break. In real time.

use kcl_local::ec2::{Mood, Server};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

use super::super::error::MetadataErrorKind;
use super::super::imds::Imds;
use super::*;

#[tokio::test]
async fn the_token_protocol_is_spoken_over_http() {
    let double = Double::default();
    let server = Server::start(double.clone()).await.unwrap();
    let imds = Imds::at(server.endpoint()).unwrap();
    assert_eq!(imds.instance().await.unwrap().id, "i-0123456789abcdef0");
    assert_eq!(imds.get(TARGET).await, Ok(None));
    double.set(TARGET, "Terminated");
    assert_eq!(imds.get(TARGET).await, Ok(Some("Terminated".to_owned())));
    assert_eq!(double.tokens_issued(), 1);
    double.set_mood(Mood::Disabled);
    assert_eq!(imds.get(TARGET).await.unwrap_err().kind(), MetadataErrorKind::Refused);
    double.set_mood(Mood::Silent);
    let slow = imds.clone().call_timeout(SECOND / 10).get(TARGET).await.unwrap_err();
    assert_eq!(slow.kind(), MetadataErrorKind::Slow);
}

#[tokio::test]
async fn a_closed_port_is_absent_and_a_cut_answer_fails() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let imds = Imds::at(format!("http://{}", listener.local_addr().unwrap())).unwrap();
    let cut = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf").await.unwrap();
    };
    let (answer, ()) = tokio::join!(imds.get(TARGET), cut);
    assert_eq!(answer.unwrap_err().kind(), MetadataErrorKind::Failing);
    drop(listener);
    let absent = imds.get(TARGET).await.unwrap_err();
    assert_eq!(absent.kind(), MetadataErrorKind::Absent);
    assert!(absent.to_string().contains("refused"), "{absent}");
}
