//! Other sites change nothing and read nothing, over every route that there is.

use reqwest::Method;
use reqwest::header::{COOKIE, HOST, ORIGIN};
use reqwest::redirect::Policy;

use super::routes;
use super::sample::Visitor;
use crate::support::Stage;

/// What a page of another site sends along, or does not.
const FOREIGN: [&[(&str, &str)]; 7] = [
    &[("origin", "http://evil.example")],
    &[("origin", "null")],
    &[("sec-fetch-site", "cross-site")],
    &[("sec-fetch-site", "same-site"), ("origin", "http://127.0.0.1:1")],
    &[("sec-fetch-site", "none")],
    &[("sec-fetch-site", "cross-site"), ("origin", "OWN")],
    &[],
];

#[tokio::test]
async fn no_route_changes_anything_for_another_site() {
    let stage = Stage::empty();
    let visitor = Visitor::sign_in(&stage).await;
    let mut tried = 0;
    for route in routes::of_pages() {
        let path = route.at(|_| Some("x".into())).unwrap();
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            for headers in FOREIGN {
                let mut request = visitor.request(method.clone(), &path);
                for (name, value) in headers {
                    request = request.header(*name, value.replace("OWN", &stage.home.url()));
                }
                let status = request.send().await.unwrap().status().as_u16();
                let wanted = if route.takes(method.as_str()) { 403 } else { 405 };
                assert_eq!(status, wanted, "{method} {path} with {headers:?}");
                tried += 1;
            }
        }
    }
    println!("{tried} requests of other sites were refused");
    assert!(visitor.is_signed_in().await, "somebody signed us out");
}

#[tokio::test]
async fn no_page_opens_under_a_name_that_is_not_ours() {
    let stage = Stage::empty();
    let visitor = Visitor::sign_in(&stage).await;
    for route in routes::of_pages() {
        let path = route.at(|_| Some("x".into())).unwrap();
        for name in ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:4100", "evil.example."]
        {
            for method in
                [Method::GET, Method::POST].into_iter().filter(|method| route.takes(method.as_str()))
            {
                let origin = format!("http://{name}");
                let request =
                    visitor.request(method.clone(), &path).header(HOST, name).header(ORIGIN, origin);
                let answer = request.send().await.unwrap();
                assert_eq!(answer.status(), 403, "{method} {path} as {name}");
                let said = answer.text().await.unwrap();
                assert!(said.contains("--public-url") && !said.contains(&stage.keys.project_id), "{said}");
            }
        }
    }
}

#[tokio::test]
async fn a_session_opens_nothing_but_pages() {
    let stage = Stage::empty();
    let visitor = Visitor::sign_in(&stage).await;
    let client = reqwest::Client::builder().redirect(Policy::none()).build().unwrap();
    for path in [stage.control("runs"), stage.control("keys"), "/v2/projects".to_owned()] {
        let request = client.get(format!("{}{path}", stage.home.url())).header(COOKIE, visitor.cookie());
        assert_eq!(request.send().await.unwrap().status(), 401, "{path}");
    }
}
