//! Signatures over bytes whose SHA-256 is known.
//!
//! The SDK hashes each body for its signature, with an implementation that is slow where the processor has no
//! instructions for it. An upload's hash is known before it is sent, and aws-lc computes the others some three times as fast.

use aws_lc_rs::digest;
use aws_runtime::auth::PayloadSigningOverride;
use aws_sdk_s3::config::interceptors::BeforeTransmitInterceptorContextMut;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;

/// The SHA-256 of a call's body, in hex. S3 computes its own, and refuses the call when they differ.
#[derive(Debug)]
pub(super) struct Signed(pub String);

impl Intercept for Signed {
    fn name(&self) -> &'static str {
        "Signed"
    }

    fn modify_before_signing(
        &self,
        _: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        config.interceptor_state().store_put(PayloadSigningOverride::Precomputed(self.0.clone()));
        Ok(())
    }
}

/// In hex.
pub(super) fn sha256(bytes: &[u8]) -> String {
    hex::encode(digest::digest(&digest::SHA256, bytes))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use aws_sdk_s3::config::http::HttpRequest;
    use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
    use aws_smithy_runtime_api::client::http::{
        HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
    };
    use aws_smithy_runtime_api::client::result::ConnectorError;

    use super::*;

    /// Tells what the signer said about the body, and sends nothing.
    #[derive(Clone, Debug)]
    struct Tell(mpsc::Sender<Option<String>>);

    impl HttpConnector for Tell {
        fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
            let said = request.headers().get("x-amz-content-sha256").map(str::to_owned);
            self.0.send(said).unwrap();
            HttpConnectorFuture::ready(Err(ConnectorError::user("nobody is there".into())))
        }
    }

    #[tokio::test]
    async fn the_signature_is_over_the_hash_that_is_known() {
        let (tell, told) = mpsc::channel();
        let connector = SharedHttpConnector::new(Tell(tell));
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new("id", "secret", None, None, "test"))
            .endpoint_url("http://s3.invalid")
            .http_client(http_client_fn(move |_, _| connector.clone()));
        let client = aws_sdk_s3::Client::from_conf(config.build());
        let known = sha256(b"another body");
        for (number, hash) in [(1, known.clone()), (2, sha256(b"a body"))] {
            let call = client.put_object().bucket("images").key(number.to_string());
            let call = call.body(b"a body".to_vec().into());
            call.customize().interceptor(Signed(hash.clone())).send().await.unwrap_err();
            assert_eq!(told.recv().unwrap(), Some(hash));
        }
    }

    #[test]
    fn a_hash_is_in_hex() {
        // NIST's example for the empty message.
        assert_eq!(sha256(b""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }
}
