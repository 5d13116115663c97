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
            let config = Arc::new(configure()?);
            Arc::clone(CONFIG.get_or_init(|| config))
        }
    };
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

/// The provider that the process has installed, or the one that the SDK uses; the certificates of the operating
/// system, as the SDK does.
fn configure() -> Result<ClientConfig, ConnectorError> {
    let provider = CryptoProvider::get_default().cloned();
    let provider = provider.unwrap_or_else(|| Arc::new(aws_lc_rs::default_provider()));
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (valid, _) = roots.add_parsable_certificates(found.certs);
    if valid == 0 {
        let problems: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        let problem =
            format!("the operating system has no usable root certificates: {}", problems.join("; "));
        return Err(ConnectorError::user(problem.into()));
    }
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| ConnectorError::user(error.into()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![HTTP_2.to_vec()];
    Ok(config)
}
