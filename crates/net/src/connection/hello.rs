//! HELLO: the first message each way, after TLS has shown who is there.

use bytes::BytesMut;
use model::{Name, NodeId};
use rnp::envelope::NOBODY;
use rnp::message::{Hello, HelloAck};
use rnp::{Envelope, ErrorCode, Fault, Flags, Frame, Limit, Message, Payload, Version};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{Ended, Purpose, Shared};

/// What HELLO agreed on, and what came after it.
pub(crate) struct Greeted {
    pub(crate) version: Version,
    pub(crate) purpose: Purpose,
    pub(crate) capabilities: Vec<String>,
    pub(crate) input: BytesMut,
}

/// Says HELLO as `shared.node`, to `peer`, and takes the answer.
pub(crate) async fn say_hello(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    shared: &Shared,
    cluster: &Name,
    peer: NodeId,
    purpose: Purpose,
) -> Result<Greeted, Ended> {
    let id = shared.ids.next();
    let hello = Hello {
        version: Version::CURRENT,
        node: shared.node,
        cluster: cluster.to_string(),
        purpose: purpose.as_str().to_owned(),
    };
    write(stream, Flags::WANTS_ANSWER, &shared.envelope(id, hello.into())).await?;
    let mut input = BytesMut::new();
    let (flags, envelope) = read(stream, &mut input).await?;
    let protocol = |text: &str| Ended::Protocol(text.to_owned());
    if flags != Flags::ANSWER || envelope.id != id {
        return Err(protocol("the first message is no answer to `hello`"));
    }
    let HelloAck { version, node, capabilities } = match envelope.message {
        Message::HelloAck(ack) => ack,
        Message::Error(fault) => return Err(Ended::Told(fault)),
        other => return Err(Ended::Protocol(format!("`{}` is no answer to `hello`", other.kind().name()))),
    };
    if node != peer || envelope.sender != peer {
        return Err(protocol("`hello_ack` names another node than the certificate"));
    }
    let version =
        Version::CURRENT.common(version).ok_or_else(|| protocol("`hello_ack` names a version that was not offered"))?;
    Ok(Greeted { version, purpose, capabilities, input })
}

/// Takes HELLO from `peer` (nobody without a certificate), and answers it: with a refusal when there is no place.
pub(crate) async fn answer_hello(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    shared: &Shared,
    cluster: &Name,
    peer: Option<NodeId>,
    full: bool,
) -> Result<Greeted, Ended> {
    let mut input = BytesMut::new();
    let (flags, envelope) = read(stream, &mut input).await?;
    let id = envelope.id;
    let refusal =
        || Fault::new(ErrorCode::ResourceExhausted, "too many connections like this one").retry_after_ms(1_000);
    let checked = check_hello(flags, envelope, cluster, peer.unwrap_or(NOBODY));
    match checked.and_then(|agreed| if full { Err(refusal()) } else { Ok(agreed) }) {
        Ok((version, purpose)) => {
            let ack = HelloAck { version, node: shared.node, capabilities: Vec::new() };
            write(stream, Flags::ANSWER, &shared.envelope(id, ack.into())).await?;
            Ok(Greeted { version, purpose, capabilities: Vec::new(), input })
        }
        Err(fault) => {
            write(stream, Flags::ANSWER, &shared.envelope(id, fault.clone().into())).await?;
            Err(Ended::Protocol(fault.message))
        }
    }
}

fn check_hello(flags: Flags, envelope: Envelope, cluster: &Name, peer: NodeId) -> Result<(Version, Purpose), Fault> {
    let Message::Hello(hello) = envelope.message else {
        return Err(Fault::new(ErrorCode::Protocol, "the first message is `hello`"));
    };
    if flags != Flags::WANTS_ANSWER {
        return Err(Fault::new(ErrorCode::Protocol, "`hello` waits for an answer"));
    }
    let Some(version) = Version::CURRENT.common(hello.version) else {
        let text = format!("version {} is spoken here, not {}", Version::CURRENT, hello.version);
        return Err(Fault::new(ErrorCode::VersionMismatch, text));
    };
    if hello.cluster != cluster.as_str() {
        return Err(Fault::new(ErrorCode::AuthFailed, "this is a node of another cluster"));
    }
    if hello.node != peer || envelope.sender != peer {
        return Err(Fault::new(ErrorCode::AuthFailed, format!("`hello` does not name `{peer}`")));
    }
    Ok((version, Purpose::of(&hello.purpose)))
}

async fn write(stream: &mut (impl AsyncWrite + Unpin), flags: Flags, envelope: &Envelope) -> Result<(), Ended> {
    let mut frame = BytesMut::new();
    let encoded = Frame::new(flags, envelope.encode()).encode(Limit::Unauthenticated, &mut frame);
    encoded.map_err(|error| Ended::Failed(error.to_string()))?;
    let written = async {
        stream.write_all(&frame).await?;
        stream.flush().await
    };
    written.await.map_err(|error| Ended::Failed(error.to_string()))
}

/// In TLS 1.3 what the other side thinks of a certificate comes sealed, after who it is was proven.
fn is_revocation(error: &std::io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::AlertReceived(rustls::AlertDescription::CertificateRevoked)))
}

/// The first message; what follows it stays in `input`.
async fn read(stream: &mut (impl AsyncRead + Unpin), input: &mut BytesMut) -> Result<(Flags, Envelope), Ended> {
    loop {
        let frame = Frame::decode(input, Limit::Unauthenticated);
        if let Some(frame) = frame.map_err(|error| Ended::Protocol(error.to_string()))? {
            return match rnp::read(&frame) {
                Ok(Payload::Message(envelope)) => Ok((frame.flags, envelope)),
                Ok(Payload::Piece(_)) => Err(Ended::Protocol("a piece of a stream before `hello`".to_owned())),
                Err(refused) => Err(Ended::Protocol(refused.fault.message)),
            };
        }
        input.reserve(1024);
        match stream.read_buf(input).await {
            Ok(0) => return Err(Ended::Closed),
            Ok(_) => {}
            Err(error) if is_revocation(&error) => return Err(Ended::Revoked),
            Err(error) => return Err(Ended::Failed(error.to_string())),
        }
    }
}
