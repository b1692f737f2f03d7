//! Braintree, Plivo's third signature and Hygraph, held against answers that Python computed.

use super::*;
use crate::verify::shake_hands;

const NOW: Timestamp = Timestamp::from_seconds(1_795_000_000);
const PAYLOAD: &str = "PG5vdGlmaWNhdGlvbj48L25vdGlmaWNhdGlvbj4%3D";

fn braintree() -> Source {
    let secret = ("integration_private_key".to_owned(), Some("integration_public_key".to_owned()));
    try_source_with("preset = \"braintree\"", &[secret]).unwrap()
}

#[test]
fn braintree_signs_a_field_of_a_form_with_its_last_line_end_or_without() {
    let source = braintree();
    let judge = |body: &str| check(&source, &Headers::new(), body.as_bytes(), NOW);
    let with_end = "9d8c26221276dbabd81c02e5f37208929f074e90";
    let without = "dd691988571e751ae9896250a0bddfd08c6b8c86";
    let form = |public: &str, signature: &str, payload: &str| {
        format!("bt_signature={public}%7C{signature}&bt_payload={payload}")
    };
    let (ours, end) = ("integration_public_key", "%0A");
    assert_eq!(judge(&form(ours, with_end, &format!("{PAYLOAD}{end}"))), Ok(0));
    assert_eq!(judge(&form(ours, with_end, PAYLOAD)), Ok(0), "the line end got lost on its way");
    assert_eq!(judge(&form(ours, without, PAYLOAD)), Ok(0));
    let beside = form(ours, without, PAYLOAD).replace("bt_signature=", "bt_signature=other%7Cabcd%26");
    assert_eq!(judge(&beside), Ok(0), "one of several pairs");
    let mismatch = Err(Rejection::SignatureMismatch);
    assert_eq!(judge(&form("other_key", without, PAYLOAD)), mismatch);
    assert_eq!(judge(&form(ours, without, "PHg%2BPC94Pg%3D%3D")), mismatch);
    let once = form(ours, without, PAYLOAD);
    for twice in ["bt_payload=PHg%2B", "bt_signature=x%7Cab"] {
        assert_eq!(judge(&format!("{once}&{twice}")), Err(Rejection::Unreadable), "{twice}");
        assert_eq!(judge(&format!("{twice}&{once}")), Err(Rejection::Unreadable), "{twice}");
    }
}

#[test]
fn braintree_hears_its_public_key_and_the_hmac_of_its_challenge_which_is_no_event() {
    let source = braintree();
    let asked = |challenge: &str| {
        let query = format!("bt_challenge={challenge}");
        let request = UnverifiedRequest {
            method: "GET",
            query: Some(&query),
            headers: &Headers::new(),
            body: b"",
            received_at: NOW,
        };
        shake_hands(&request, &source, None, &mut Silent).unwrap().map(|reply| reply.body)
    };
    let answer = "d9b899556c966b3f06945ec21311865d35df3ce4";
    let challenge = "20f9f8ed05f77439fe955c977e4c8a53";
    assert_eq!(asked(challenge), Ok(format!("integration_public_key|{answer}")));
    for other in ["PG5vdGlmaWNhdGlvbj4%3D", "20f9", "20F9F8ED05F77439FE955C977E4C8A53", &"a".repeat(33)] {
        assert_eq!(asked(other), Err(Rejection::Unreadable), "{other}");
    }
    let event = format!("bt_signature=integration_public_key%7C{answer}&bt_payload={challenge}");
    assert_eq!(check(&source, &Headers::new(), event.as_bytes(), NOW), Err(Rejection::Unreadable));
}

#[test]
fn plivo_signs_the_sorted_url_the_sorted_fields_and_a_nonce() {
    let judge = |method: &str, query: Option<&str>, body: &str, signature: &str| {
        let table = "public_url = \"https://hooks.example.com/x\"\npreset = \"plivo-v3\"";
        let source = source(table, &["s3cret"]);
        let headers =
            vec![header("x-plivo-signature-v3", signature), header("x-plivo-signature-v3-nonce", "12345")];
        super::judge(
            &source,
            UnverifiedRequest { method, query, headers: &headers, body: body.as_bytes(), received_at: NOW },
        )
    };
    let form = "Ruf/Y8732UB26Qbq9YVjszRIBKcpS4eTVslkEO6U46k=";
    assert_eq!(judge("POST", None, "To=3&From=1&To=2", form), Ok(0));
    assert_eq!(judge("POST", None, "From=1&To=2&To=3", &format!("bm8=,{form}")), Ok(0));
    let both = "ToDMkXZqHPSXZuWhDR+HSt4bXagaP8LB7cW2YNx06EU=";
    assert_eq!(judge("POST", Some("b=3&a=1&b=2"), "From=1", both), Ok(0));
    let bare = "/EKCoTfTbz8hkQ0RgQfNAoxBsM4SqqqEWNWcC7Mu9Ik=";
    assert_eq!(judge("GET", Some("b=3&a=1&b=2"), "", bare), Err(Rejection::MethodNotAllowed));
    assert_eq!(judge("POST", None, "", "eJUixOGs3z6K3paiO9vxGI8TaYkgIxCofudzqKU4TxM="), Ok(0));
    assert_eq!(judge("POST", None, "From=1&To=2", form), Err(Rejection::SignatureMismatch));
    assert_eq!(judge("POST", Some("a=1"), "To=3&From=1&To=2", form), Err(Rejection::SignatureMismatch));
}

#[test]
fn hygraph_signs_json_in_which_the_body_is_a_string() {
    let source = source("preset = \"hygraph\"", &["s3cret"]);
    let body = "{\"operation\":\"publish\",\"data\":{\"id\":\"aü\"}}";
    let signature = "sign=uamvHJ+gvhPnY1h6pWt2Zj7OM9i17UiAIYK2eq508HA=, env=master, t=1795000000000";
    let judge = |body: &str, signature: &str| {
        check(&source, &vec![header("gcms-signature", signature)], body.as_bytes(), NOW)
    };
    assert_eq!(judge(body, signature), Ok(0));
    assert_eq!(judge("{}", signature), Err(Rejection::SignatureMismatch));
    assert_eq!(judge(body, &signature.replace("master", "other")), Err(Rejection::SignatureMismatch));
}
