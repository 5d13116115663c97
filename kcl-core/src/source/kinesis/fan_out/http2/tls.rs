//! TLS for connections of subscriptions: the SDK's own stack, asking for HTTP/2.

use std::sync::{Arc, OnceLock};

use aws_smithy_runtime_api::client::result::ConnectorError;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::connection::Endpoint;

const HTTP_2: &[u8] = b"h2";

/// The configuration, read once: reading the certificates of the operating system takes its time.
static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();

/// Shakes hands with the endpoint.
pub(super) async fn connect(
    endpoint: &Endpoint,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, ConnectorError> {
    let config = match CONFIG.get() {
        Some(config) => Arc::clone(config),
        None => {
            let config = Arc::new(configure(native_roots()?)?);
            Arc::clone(CONFIG.get_or_init(|| config))
        }
    };
    shake_hands(config, endpoint, stream).await
}

async fn shake_hands(
    config: Arc<ClientConfig>,
    endpoint: &Endpoint,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, ConnectorError> {
    let name = ServerName::try_from(endpoint.name().to_owned())
        .map_err(|error| ConnectorError::user(error.into()))?;
    let stream = TlsConnector::from(config)
        .connect(name, stream)
        .await
        .map_err(|error| ConnectorError::io(error.into()))?;
    if stream.get_ref().1.alpn_protocol() != Some(HTTP_2) {
        return Err(ConnectorError::io("the endpoint does not speak HTTP/2".into()));
    }
    Ok(stream)
}

/// The certificates of the operating system, as the SDK does.
fn native_roots() -> Result<RootCertStore, ConnectorError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (valid, _) = roots.add_parsable_certificates(found.certs);
    if valid == 0 {
        let problems: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        let problem =
            format!("the operating system has no usable root certificates: {}", problems.join("; "));
        return Err(ConnectorError::user(problem.into()));
    }
    Ok(roots)
}

/// By the provider that the process has installed, or the one that the SDK uses.
fn configure(roots: RootCertStore) -> Result<ClientConfig, ConnectorError> {
    let provider = CryptoProvider::get_default().cloned();
    let provider = provider.unwrap_or_else(|| Arc::new(aws_lc_rs::default_provider()));
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| ConnectorError::user(error.into()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![HTTP_2.to_vec()];
    Ok(config)
}

/// Has connections trust the certificate of the tests, and it alone, from now on.
#[cfg(test)]
pub(super) fn trust_localhost() {
    let config = configure(tests::roots()).unwrap();
    CONFIG.get_or_init(|| Arc::new(config));
}

#[cfg(test)]
pub(super) mod tests {
    use rustls::ServerConfig;
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::task::JoinSet;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    const PEM: &[u8] = include_bytes!("localhost.pem");

    pub(super) fn roots() -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(PEM).unwrap()).unwrap();
        roots
    }

    /// A server for `localhost` that agrees on one of these protocols.
    pub(in super::super) fn acceptor(protocols: &[&[u8]]) -> TlsAcceptor {
        let certificate = CertificateDer::from_pem_slice(PEM).unwrap();
        let key = PrivateKeyDer::from_pem_slice(PEM).unwrap();
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }

    /// What comes of shaking hands with a server of these protocols, under this name, with these roots.
    async fn shaken(protocols: &[&[u8]], name: &str, roots: RootCertStore) -> Result<Vec<u8>, String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = acceptor(protocols);
        let mut server = JoinSet::new();
        server.spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            // The client may have hung up.
            let _ = stream.write_all(b"welcome").await;
            let _ = stream.shutdown().await;
        });
        let uri = format!("https://{name}:{}/", address.port()).parse().unwrap();
        let endpoint = Endpoint::of(&uri).unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        let config = Arc::new(configure(roots).unwrap());
        let mut stream = shake_hands(config, &endpoint, stream).await.map_err(|error| {
            let error: &dyn std::error::Error = &error;
            crate::error::Chain(error).to_string()
        })?;
        let mut said = Vec::new();
        stream.read_to_end(&mut said).await.unwrap();
        Ok(said)
    }

    #[tokio::test]
    async fn hands_are_shaken_with_whom_a_root_vouches_for_and_who_speaks_http_2() {
        let (h2, h1): (&[u8], &[u8]) = (b"h2", b"http/1.1");
        assert_eq!(shaken(&[h2], "localhost", roots()).await.unwrap(), b"welcome");
        assert_eq!(shaken(&[h1, h2], "localhost", roots()).await.unwrap(), b"welcome");
        let stranger = shaken(&[h2], "localhost", RootCertStore::empty()).await.unwrap_err();
        assert!(stranger.contains("UnknownIssuer"), "{stranger}");
        let other = shaken(&[h2], "kinesis.example", roots()).await.unwrap_err();
        assert!(other.contains("not valid for name"), "{other}");
        let old = shaken(&[], "localhost", roots()).await.unwrap_err();
        assert!(old.contains("does not speak HTTP/2"), "{old}");
    }
}
