//! How the demo's receivers listen.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

/// Listens on a free port of the loopback interface, until the process ends; each connection has a thread of its own.
pub(super) fn listen(
    name: &str,
    serve: impl Fn(&TcpStream) -> io::Result<()> + Send + Sync + 'static,
) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let serve = Arc::new(serve);
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = serve.clone();
            // A connection that breaks is the sender's to notice.
            std::thread::spawn(move || drop(serve(&stream)));
        }
    })?;
    Ok(address)
}
