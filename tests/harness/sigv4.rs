//! AWS Signature Version 4, as the server that knows the key checks it: "Signature Version 4 signing process" of AWS's
//! general reference.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use crate::http::Request;

/// Checks the signature of a request to this service and region.
///
/// # Errors
/// What is wrong with it.
pub fn verify(request: &Request, secret_key: &str, region: &str, service: &str) -> Result<(), String> {
    let header = |name: &str| request.headers.get(name).cloned().ok_or_else(|| format!("no {name}"));
    let authorization = header("authorization")?;
    let part = |name: &str| {
        let part = authorization.split([' ', ',']).find_map(|part| part.strip_prefix(name));
        part.map(str::to_owned).ok_or_else(|| format!("no {name} in {authorization}"))
    };
    let (date, digest) = (header("x-amz-date")?, header("x-amz-content-sha256")?);
    if digest != hex(&Sha256::digest(&request.body)) {
        return Err("the body is another".to_owned());
    }
    let scope = format!("{}/{region}/{service}/aws4_request", &date[..8]);
    if !part("Credential=")?.ends_with(&scope) {
        return Err(format!("the scope is not {scope}: {authorization}"));
    }
    let names = part("SignedHeaders=")?;
    if !names.split(';').any(|name| name == "host") || !names.split(';').any(|name| name == "x-amz-date") {
        return Err(format!("host and x-amz-date are not signed: {names}"));
    }
    let mut canonical = format!("{}\n{}\n\n", request.method, request.path);
    for name in names.split(';') {
        canonical += &format!("{name}:{}\n", header(name)?.trim());
    }
    canonical += &format!("\n{names}\n{digest}");
    let canonical = hex(&Sha256::digest(canonical));
    let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{canonical}");
    let key = scope.split('/').fold(format!("AWS4{secret_key}").into_bytes(), |key, part| hmac(&key, part));
    let expected = hex(&hmac(&key, &text));
    if part("Signature=")? == expected { Ok(()) } else { Err(format!("the signature is not {expected}")) }
}

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    let mut hmac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    hmac.update(text.as_bytes());
    hmac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The request that AWS's reference signs as its example.
    #[test]
    fn the_example_of_the_reference_is_right() {
        let authorization = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
            SignedHeaders=host;x-amz-date, Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31";
        let headers = [
            ("host", "example.amazonaws.com"),
            ("x-amz-date", "20150830T123600Z"),
            ("x-amz-content-sha256", &hex(&Sha256::digest([]))),
            ("authorization", authorization),
        ];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let mut request = Request { method: "GET".into(), path: "/".into(), headers, body: Vec::new() };
        let verified = |request: &Request| {
            verify(request, "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "us-east-1", "service")
        };
        assert_eq!(verified(&request), Ok(()));
        request.path = "/other".into();
        assert!(verified(&request).is_err());
    }
}
