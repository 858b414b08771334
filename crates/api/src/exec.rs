//! The frames of an `exec` after its connection was upgraded: one byte of kind, four of length (big-endian), payload.
//!
//! Client to agent: [`STDIN`], empty at its end, and for a command with a terminal [`RESIZE`] with a
//! [`TerminalSize`](crate::types::TerminalSize) as JSON. Agent to client: [`STDOUT`], [`STDERR`], and last [`EXIT`] with an
//! [`Ended`](crate::types::Ended) as JSON. Version 1; a new form gets a new `Upgrade` token.

use std::io;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The `Upgrade` token of this framing.
pub const PROTOCOL: &str = "rads-exec/1";

/// The `Upgrade` token of a connection that carries a star's bytes as they are.
pub const BYTES: &str = "rads-bytes/1";

pub const STDIN: u8 = 0;
pub const STDOUT: u8 = 1;
pub const STDERR: u8 = 2;
pub const EXIT: u8 = 3;
pub const RESIZE: u8 = 4;

/// Longest payload. A pipe holds 64 KiB, so a read of one never gives more.
pub const PAYLOAD_MAX: usize = 64 << 10;

/// Writes one frame.
pub async fn write_frame<W: AsyncWrite + Unpin>(to: &mut W, kind: u8, payload: &[u8]) -> io::Result<()> {
    let length = u32::try_from(payload.len()).ok().filter(|&length| length as usize <= PAYLOAD_MAX);
    let length = length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "frame too long"))?;
    let mut frame = BytesMut::with_capacity(5 + payload.len());
    frame.put_u8(kind);
    frame.put_u32(length);
    frame.put_slice(payload);
    to.write_all(&frame).await?;
    to.flush().await
}

/// Reads one frame; `None` at the end of the stream between two frames.
pub async fn read_frame<R: AsyncRead + Unpin>(from: &mut R) -> io::Result<Option<(u8, Bytes)>> {
    let kind = match from.read_u8().await {
        Ok(kind) => kind,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    let length = from.read_u32().await? as usize;
    if kind > RESIZE || length > PAYLOAD_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a frame of this protocol"));
    }
    let mut payload = vec![0; length];
    from.read_exact(&mut payload).await?;
    Ok(Some((kind, payload.into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_read_back_and_nothing_else_is_taken_for_one() {
        let (mut near, mut far) = tokio::io::duplex(1 << 20);
        write_frame(&mut near, STDOUT, b"hello").await.unwrap();
        write_frame(&mut near, STDIN, b"").await.unwrap();
        assert_eq!(read_frame(&mut far).await.unwrap(), Some((STDOUT, Bytes::from("hello"))));
        assert_eq!(read_frame(&mut far).await.unwrap(), Some((STDIN, Bytes::new())));
        near.write_all(&[STDOUT, 0xff, 0xff, 0xff, 0xff]).await.unwrap();
        assert_eq!(read_frame(&mut far).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        drop(near);
        assert!(read_frame(&mut far).await.unwrap().is_none());
        assert!(write_frame(&mut far, STDIN, &vec![0; PAYLOAD_MAX + 1]).await.is_err());
    }
}
