//! Encrypted receivers: whom delivery trusts, and what it says of the others.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use queue::delivery::Verdict;
use rcgen::{BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::fakes::World;

struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn named(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { issuer }
    }

    fn server(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> ServerConfig {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        server_with(&params.signed_by(&key, &self.issuer).unwrap(), &key)
    }

    fn client(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Arc::new(config)
    }
}

fn self_signed(name: &str) -> ServerConfig {
    let key = KeyPair::generate().unwrap();
    server_with(&CertificateParams::new([name.to_owned()]).unwrap().self_signed(&key).unwrap(), &key)
}

fn server_with(certificate: &Certificate, key: &KeyPair) -> ServerConfig {
    ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap()
}

/// Answers 200 to whoever trusts it, and hands out what it read.
async fn serve(config: ServerConfig) -> (SocketAddr, tokio::sync::mpsc::UnboundedReceiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (seen, requests) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        let acceptor = TlsAcceptor::from(Arc::new(config));
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = Vec::new();
            while !request.ends_with(b"}}") && stream.read_buf(&mut request).await.unwrap_or(0) > 0 {}
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
            if seen.send(request).is_err() {
                return;
            }
        }
    });
    (address, requests)
}

#[tokio::test]
async fn a_trusted_receiver_gets_the_delivery_under_its_name() {
    let authority = Authority::named("trusted");
    let (at, mut requests) = serve(authority.server("hooks.example.com", |_| {})).await;
    let world = World::with(|options| options.tls = Some(authority.client()));
    world.names.say("hooks.example.com", &[&["127.0.0.1"]]);
    let id = world.deliver(&format!("https://hooks.example.com:{}/x", at.port()));
    let end = world.shelf.first_end(id).await;
    assert_eq!((end.verdict, end.report.response.as_deref()), (Verdict::Delivered, Some("ok")));
    assert!(end.report.timings.tls.is_some(), "{:?}", end.report.timings);
    let request = String::from_utf8(requests.recv().await.unwrap()).unwrap();
    assert!(request.contains(&format!("host: hooks.example.com:{}", at.port())), "{request}");
}

#[tokio::test]
async fn untrusted_receivers_are_named_by_kind_and_get_not_a_byte() {
    let authority = Authority::named("trusted");
    let other = Authority::named("nobody knows us");
    let world = World::with(|options| options.tls = Some(authority.client()));
    world.names.say("hooks.example.com", &[&["127.0.0.1"]]);
    let expired = |params: &mut CertificateParams| {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    };
    let early = |params: &mut CertificateParams| params.not_before = rcgen::date_time_ymd(2900, 1, 1);
    for (config, reason) in [
        (other.server("hooks.example.com", |_| {}), "tls:unknown_issuer"),
        (self_signed("hooks.example.com"), "tls:unknown_issuer"),
        (authority.server("other.example.com", |_| {}), "tls:wrong_host"),
        (authority.server("hooks.example.com", expired), "tls:expired"),
        (authority.server("hooks.example.com", early), "tls:not_valid_yet"),
    ] {
        let (at, mut requests) = serve(config).await;
        let id = world.deliver(&format!("https://hooks.example.com:{}/x", at.port()));
        let end = world.shelf.first_end(id).await;
        assert_eq!(end.report.reason.as_deref(), Some(reason));
        assert!(requests.try_recv().is_err(), "{reason}");
    }
}

#[tokio::test]
async fn a_receiver_that_speaks_both_gets_http_1_and_one_that_does_not_is_named() {
    let authority = Authority::named("trusted");
    let world = World::with(|options| options.tls = Some(authority.client()));
    world.names.say("hooks.example.com", &[&["127.0.0.1"]]);
    for (spoken, reason) in [(&["h2", "http/1.1"][..], None), (&["h2"], Some("tls:no_http_1"))] {
        let mut config = authority.server("hooks.example.com", |_| {});
        config.alpn_protocols = spoken.iter().map(|word| word.as_bytes().to_vec()).collect();
        let (at, mut requests) = serve(config).await;
        let id = world.deliver(&format!("https://hooks.example.com:{}/x", at.port()));
        let end = world.shelf.first_end(id).await;
        assert_eq!(end.report.reason.as_deref(), reason, "{spoken:?}");
        assert_eq!(requests.try_recv().is_ok(), reason.is_none(), "{spoken:?}");
    }
}

#[tokio::test]
async fn what_does_not_speak_tls_is_said_so() {
    let world = World::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let talker = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let id = world.deliver(&format!("https://{talker}/"));
    let end = world.shelf.first_end(id).await;
    assert_eq!(end.report.reason.as_deref(), Some("tls:not_tls"));
}
