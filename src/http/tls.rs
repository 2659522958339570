//! HTTPS of our own: a certificate that is read again when its files change.
//!
//! For operators who have no proxy in front. Printers should have one: an ESP8266 has no memory for TLS without the
//! extension for small records, which rustls does not have.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{self, ServerConfig};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::config::TlsFiles;
use crate::telemetry::metrics;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Longest handshake, the wait for a turn included.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(5);
/// Handshakes at once: each costs a signature.
const HANDSHAKES: usize = 256;

/// Why the files are of no use.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("{setting}={}: {error}", path.display())]
    Read {
        /// Which one.
        setting: &'static str,
        /// Where.
        path: PathBuf,
        /// What is wrong.
        error: std::io::Error,
    },
    /// A file holds something else.
    #[error("{setting}={} holds no {wanted} as PEM: {why}", path.display())]
    Pem {
        /// Which one.
        setting: &'static str,
        /// Where.
        path: PathBuf,
        /// What should be there.
        wanted: &'static str,
        /// What is wrong.
        why: String,
    },
    /// They do not belong together, or the key is of an unknown kind.
    #[error("TLS_KEY_FILE is not the key of the certificate in TLS_CERT_FILE: {0}")]
    Pair(#[from] rustls::Error),
}

/// The certificate in use, and the way to a conversation. Clones share it.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    current: Arc<Current>,
    turns: Arc<Semaphore>,
}

struct Current {
    files: TlsFiles,
    /// A hash of what the files held when they were last looked at, and what is shown to clients.
    state: RwLock<([u8; 32], Arc<CertifiedKey>)>,
}

/// Both files.
type Contents = (Vec<u8>, Vec<u8>);

fn digest((certificate, key): &Contents) -> [u8; 32] {
    Sha256::new()
        .chain_update(Sha256::digest(certificate))
        .chain_update(Sha256::digest(key))
        .finalize()
        .into()
}

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Current").field("files", &self.files).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.state.read().unwrap_or_else(PoisonError::into_inner).1.clone())
    }
}

fn read(files: &TlsFiles) -> Result<Contents, Error> {
    let read = |setting, path: &PathBuf| {
        std::fs::read(path).map_err(|error| Error::Read { setting, path: path.clone(), error })
    };
    Ok((read("TLS_CERT_FILE", &files.certificate)?, read("TLS_KEY_FILE", &files.key)?))
}

fn understand(files: &TlsFiles, (certificate, key): &Contents) -> Result<Arc<CertifiedKey>, Error> {
    let pem = |setting, path: &PathBuf, wanted, why| Error::Pem { setting, path: path.clone(), wanted, why };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate).collect();
    let chain = chain.map_err(|error| error.to_string());
    let chain =
        chain.and_then(|chain| if chain.is_empty() { Err("none is there".into()) } else { Ok(chain) });
    let chain = chain.map_err(|why| pem("TLS_CERT_FILE", &files.certificate, "certificate", why))?;
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|error| pem("TLS_KEY_FILE", &files.key, "private key", error.to_string()))?;
    Ok(Arc::new(CertifiedKey::from_der(chain, key, &default_provider())?))
}

impl Tls {
    /// Reads the files, which must be good.
    pub fn load(files: TlsFiles) -> Result<Self, Error> {
        let contents = read(&files)?;
        let key = understand(&files, &contents)?;
        let current = Arc::new(Current { files, state: RwLock::new((digest(&contents), key)) });
        let mut config = ServerConfig::builder_with_provider(default_provider().into())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(current.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Ok(Self { acceptor, current, turns: Arc::new(Semaphore::new(HANDSHAKES)) })
    }

    /// Takes over what the files hold now. True when that is something new.
    fn renew(&self) -> Result<bool, Error> {
        let contents = read(&self.current.files)?;
        let lock = || self.current.state.write().unwrap_or_else(PoisonError::into_inner);
        if lock().0 == digest(&contents) {
            return Ok(false);
        }
        let key = understand(&self.current.files, &contents);
        // What is broken is said once, and not every five seconds.
        lock().0 = digest(&contents);
        lock().1 = key?;
        Ok(true)
    }

    /// Follows the files until the end. One that is broken changes nothing but the log.
    pub async fn follow(self, stop: CancellationToken) {
        let mut unreadable = false;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(LOOK_EVERY) => {}
            }
            let tls = self.clone();
            let renewed = tokio::task::spawn_blocking(move || tls.renew()).await;
            match renewed {
                Ok(Ok(true)) => tracing::info!("a new certificate is in use"),
                Ok(Ok(false)) => {}
                Ok(Err(Error::Read { .. })) if unreadable => continue,
                Ok(Err(error)) => {
                    tracing::error!(%error, "the new certificate is of no use; the old one stays");
                    unreadable = matches!(error, Error::Read { .. });
                    continue;
                }
                Err(error) => tracing::error!(%error, "the certificate could not be looked at"),
            }
            unreadable = false;
        }
    }

    /// The handshake, in time or not at all.
    pub(super) async fn accept(&self, stream: TcpStream) -> Option<TlsStream<TcpStream>> {
        let handshake = async {
            let _turn = self.turns.acquire().await.ok()?;
            match self.acceptor.accept(stream).await {
                Ok(stream) => Some(stream),
                Err(error) => {
                    tracing::debug!(%error, "a TLS handshake failed");
                    None
                }
            }
        };
        let accepted = timeout(HANDSHAKE_WITHIN, handshake).await.ok().flatten();
        if accepted.is_none() {
            metrics::refused("tls_handshake");
        }
        accepted
    }
}
