//! The server's certificate for encrypted DNS: two files that are read again when they change, as
//! cert-manager and kubelets change them. What is encrypted with it is not known here.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;

use crate::error::Error;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// A certificate with its key, as the files have them, or had them when they last were whole.
#[derive(Debug)]
pub struct Certificate {
    chain: PathBuf,
    key: PathBuf,
    provider: Arc<CryptoProvider>,
    current: ArcSwap<CertifiedKey>,
}

/// What the two files say.
type Texts = [Vec<u8>; 2];

impl Certificate {
    /// Reads the chain and the key of it, both in PEM.
    ///
    /// # Errors
    /// A file cannot be read, or the key is not that of the certificate.
    pub fn read(chain: PathBuf, key: PathBuf) -> Result<Certificate, Error> {
        let provider = Arc::new(default_provider());
        let current = parse(&texts(&chain, &key)?, &chain, &provider)?;
        Ok(Certificate { chain, key, provider, current: ArcSwap::from_pointee(current) })
    }

    /// The cryptography that the key was made for.
    pub(crate) fn provider(&self) -> Arc<CryptoProvider> {
        self.provider.clone()
    }

    /// Reads the files again whenever they change, for as long as it is polled. While one of them is missing,
    /// or they do not fit together, the certificate stays.
    pub async fn follow(&self) {
        let (mut look, mut seen) = (tokio::time::interval(LOOK), None);
        loop {
            look.tick().await;
            let now = texts(&self.chain, &self.key).map_err(|error| error.to_string());
            if seen.as_ref() != Some(&now) {
                self.take(&now, seen.is_none());
                seen = Some(now);
            }
        }
    }

    fn take(&self, texts: &Result<Texts, String>, first: bool) {
        let parsed = texts.as_ref().map_err(Clone::clone);
        let parsed =
            parsed.and_then(|texts| parse(texts, &self.chain, &self.provider).map_err(|e| e.to_string()));
        match parsed {
            Ok(certified) => {
                self.current.store(Arc::new(certified));
                if !first {
                    tracing::info!(file = %self.chain.display(), "reloaded the certificate");
                }
            }
            Err(problem) => {
                tracing::warn!(problem, "cannot reload the certificate: keeping the certificate in use")
            }
        }
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

fn texts(chain: &Path, key: &Path) -> Result<Texts, Error> {
    let read = |path: &Path| {
        std::fs::read(path).map_err(|source| Error::ReadCertificate { path: path.to_owned(), source })
    };
    Ok([read(chain)?, read(key)?])
}

fn parse([chain, key]: &Texts, path: &Path, provider: &CryptoProvider) -> Result<CertifiedKey, Error> {
    let unfit = |source: io::Error| Error::Certificate { path: path.to_owned(), source };
    let certificates = CertificateDer::pem_slice_iter(chain).collect::<Result<Vec<_>, _>>();
    let certificates = certificates.map_err(|error| unfit(io::Error::other(error.to_string())))?;
    let key = PrivateKeyDer::from_pem_slice(key);
    let key = key.map_err(|error| unfit(io::Error::other(format!("the key: {error}"))))?;
    CertifiedKey::from_der(certificates, key, provider).map_err(|error| unfit(io::Error::other(error)))
}
