//! What a Forward receiver sends: acknowledgements, and its side of the handshake.

mod receiver;

use rmpv::Value;
use sidelight_agent::delivery::forward::frame::{Replies, acknowledged};
use sidelight_agent::delivery::forward::handshake::{shake, wants_security};

use receiver::{Pieces, Receiver};

/// Replies may take this many bytes before they are refused, and the buffer has room for twice as much.
const MOST_BUFFERED: usize = 128 << 10;

/// The first two bytes choose in what pieces the others arrive, and what is wrong with an honest receiver's answer.
///
/// Replies are the same in whatever pieces they come, and as MessagePack has them; one without end is refused; and only a
/// receiver that knows the key is taken for one.
pub fn replies(data: &[u8]) {
    let [piece, choice, wire @ ..] = data else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let whole = read(Pieces::new(wire, wire.len())).await;
        assert_eq!(whole, read(Pieces::new(wire, usize::from(*piece) + 1)).await);
        assert_eq!(whole.0, decoded(wire), "the replies are what MessagePack says");
        acknowledgement(wire, *choice).await;
        if *piece == 0 && *choice == 0 {
            endless(wire).await;
        }
        handshake(wire, *choice).await;
    });
}

/// The replies of a connection, and why there was no other.
async fn read(mut socket: Pieces<'_>) -> (Vec<String>, String) {
    let (mut replies, mut read) = (Replies::default(), Vec::new());
    loop {
        match replies.next(&mut socket).await {
            Ok(reply) => {
                wants_security(&reply);
                acknowledged(&reply);
                // Not-a-number is not even itself, but its text is.
                read.push(format!("{reply:?}"));
            }
            Err(error) => return (read, error.to_string()),
        }
    }
}

fn decoded(mut wire: &[u8]) -> Vec<String> {
    let next = || rmpv::decode::read_value_with_max_depth(&mut wire, 8).ok();
    std::iter::from_fn(next).map(|value| format!("{value:?}")).collect()
}

/// An acknowledgement names its chunk, as a text or as bytes, whatever else it says.
async fn acknowledgement(id: &[u8], choice: u8) {
    let id = &id[..id.len().min(64)];
    let (text, other) = (String::from_utf8_lossy(id).into_owned(), (Value::from("size"), Value::from(1)));
    let (value, expected) =
        if choice & 1 == 0 { (Value::from(id), id) } else { (Value::from(text.as_str()), text.as_bytes()) };
    let entry = (Value::from("ack"), value);
    let reply = Value::Map(if choice & 2 == 0 { vec![entry, other] } else { vec![other, entry] });
    let mut wire = Vec::new();
    rmpv::encode::write_value(&mut wire, &reply).expect("memory");
    let read = Replies::default().next(&mut Pieces::new(&wire, 1)).await.expect("a reply");
    assert_eq!(acknowledged(&read), Some(expected));
}

/// A list that never ends is refused before it takes much memory.
async fn endless(wire: &[u8]) {
    let start = [0xdd, 0xff, 0xff, 0xff, 0xff];
    let endless: Vec<u8> =
        start.into_iter().chain(wire.iter().copied().cycle().take(2 * MOST_BUFFERED)).collect();
    let mut socket = Pieces::new(&endless, endless.len());
    assert!(Replies::default().next(&mut socket).await.is_err());
    assert!(socket.taken() <= MOST_BUFFERED, "{} bytes were taken", socket.taken());
}

async fn handshake(wire: &[u8], choice: u8) {
    let (config, key) = receiver::config();
    let mut stranger = Pieces::new(wire, wire.len());
    assert!(
        shake(&config, &key, &mut stranger, &mut Replies::default()).await.is_err(),
        "a stranger is let in"
    );
    let mut receiver = Receiver::new(wire, choice);
    let agreed = shake(&config, &key, &mut receiver, &mut Replies::default()).await;
    assert_eq!(agreed.ok().map(|agreed| agreed.keepalive), receiver.deserves());
}
