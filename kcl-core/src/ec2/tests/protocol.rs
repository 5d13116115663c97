//! IMDSv2, in virtual time.

use kcl_local::ec2::Mood;
use tokio::time::{Instant, advance};

use super::super::error::MetadataErrorKind;
use super::super::imds::Imds;
use super::super::observation::{Look, TargetState};
use super::*;

fn client(wire: &Wire) -> Imds {
    Imds::with_transport(wire.clone()).entropy(crate::Entropy::seeded(3))
}

#[tokio::test(start_paused = true)]
async fn one_token_serves_all_requests_until_four_fifths_of_its_life_are_over() {
    let wire = Wire::new();
    let imds = client(&wire).token_ttl(SECOND * 100);
    let instance = imds.instance().await.unwrap();
    assert_eq!((instance.id.as_str(), instance.region.as_str()), ("i-0123456789abcdef0", "us-east-1"));
    let expected = [
        "PUT /latest/api/token",
        "GET /latest/meta-data/instance-id",
        "GET /latest/meta-data/placement/region",
    ];
    assert_eq!(wire.double.calls(), expected);
    advance(SECOND * 79).await;
    imds.get("instance-id").await.unwrap();
    assert_eq!(wire.double.tokens_issued(), 1);
    advance(SECOND).await;
    imds.clone().get("instance-id").await.unwrap();
    imds.get("instance-id").await.unwrap();
    assert_eq!(wire.double.tokens_issued(), 2, "renewed before it expires, and clones share it");
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_is_replaced_and_the_question_asked_again() {
    let wire = Wire::new();
    let imds = client(&wire);
    imds.get("instance-id").await.unwrap();
    wire.double.forget_tokens();
    assert_eq!(imds.get(TARGET).await, Ok(None), "what is not there is nothing, not an error");
    assert_eq!(wire.double.tokens_issued(), 2);
    wire.double.set_mood(Mood::Unauthorized);
    let error = imds.get("instance-id").await.unwrap_err();
    assert_eq!(error.kind(), MetadataErrorKind::Refused);
    assert_eq!(wire.double.tokens_issued(), 3, "one new token for a question, not one after the other");
}

#[tokio::test(start_paused = true)]
async fn each_kind_of_trouble_is_told_with_what_to_do() {
    for (mood, kind, advice) in [
        (Mood::Silent, MetadataErrorKind::Slow, "hop limit"),
        (Mood::SilentAfterToken, MetadataErrorKind::Slow, "within 1s"),
        (Mood::Disabled, MetadataErrorKind::Refused, "HttpEndpoint"),
        (Mood::Unauthorized, MetadataErrorKind::Refused, "fresh token"),
        (Mood::Failing(503), MetadataErrorKind::Failing, "answered 503"),
        (Mood::Failing(429), MetadataErrorKind::Failing, "answered 429"),
        (Mood::Failing(404), MetadataErrorKind::Odd, "version 2"),
        (Mood::Garbled, MetadataErrorKind::Odd, "proxy"),
    ] {
        let wire = Wire::new();
        wire.double.set_mood(mood);
        let error = client(&wire).instance().await.unwrap_err();
        assert_eq!(error.kind(), kind, "{mood:?}");
        assert!(error.to_string().contains(advice), "{mood:?}: {error}");
    }
    let wire = Wire::new();
    wire.is_cut.store(true, Ordering::Relaxed);
    let error = client(&wire).instance().await.unwrap_err();
    assert_eq!(error.kind(), MetadataErrorKind::Absent);
    assert!(error.to_string().contains("not an EC2 instance"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn the_identity_is_asked_for_again_while_the_trouble_may_pass() {
    let wire = Wire::new();
    wire.double.set_mood(Mood::Failing(500));
    let (imds, begun) = (client(&wire), Instant::now());
    let heal = async {
        tokio::time::sleep(SECOND / 4).await;
        wire.double.set_mood(Mood::Well);
    };
    let (instance, ()) = tokio::join!(imds.instance(), heal);
    assert_eq!(instance.unwrap().id, "i-0123456789abcdef0");
    assert!(begun.elapsed() < SECOND * 3, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_odd_item_hides_no_other_and_an_absent_service_is_asked_once() {
    let wire = Wire::new();
    wire.double.set(TARGET, "<html>");
    wire.double.set("spot/instance-action", r#"{"action":"stop","time":"2023-11-14T22:15:20Z"}"#);
    wire.double.set("events/recommendations/rebalance", r#"{"noticeTime":"2023-11-14T22:13:20Z"}"#);
    let imds = client(&wire);
    let look = Look::at(&imds).await;
    assert_eq!(look.target.as_ref().unwrap_err().kind(), MetadataErrorKind::Odd);
    let spot = look.spot.as_ref().unwrap().as_ref().unwrap();
    assert_eq!((spot.action.as_str(), spot.at), ("stop", epoch() + SECOND * 120));
    assert_eq!(look.rebalance, Ok(Some(epoch())));
    wire.double.set(TARGET, "InService\n");
    assert_eq!(Look::at(&imds).await.target, Ok(Some(TargetState::InService)));

    wire.double.set_mood(Mood::SilentAfterToken);
    let (calls, begun) = (wire.double.calls().len(), Instant::now());
    let look = Look::at(&imds).await;
    assert_eq!(wire.double.calls().len(), calls + 1);
    assert_eq!(begun.elapsed(), SECOND);
    assert!(look.spot.is_err() && look.rebalance.is_err() && look.target.is_err());
}
