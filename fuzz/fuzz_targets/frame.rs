//! Frames from a peer: the input is a limit, the size of the parts it arrives in, and the bytes.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use rnp::{Frame, Limit};

fuzz_target!(|input: &[u8]| {
    let [limit, part, bytes @ ..] = input else { return };
    let limit = [Limit::Unauthenticated, Limit::Control, Limit::Bulk][usize::from(*limit) % 3];
    let mut buffer = BytesMut::new();
    for part in bytes.chunks(usize::from(*part) + 1) {
        buffer.extend_from_slice(part);
        loop {
            match Frame::decode(&mut buffer, limit) {
                Ok(Some(frame)) => {
                    assert!(frame.payload.len() <= limit.bytes());
                    let _ = rnp::read(&frame);
                    let mut again = BytesMut::new();
                    frame.encode(limit, &mut again).expect("what was taken can be sent");
                    assert_eq!(Frame::decode(&mut again, limit), Ok(Some(frame)));
                }
                Ok(None) => break,
                Err(_) => return,
            }
        }
        assert!(buffer.len() <= limit.bytes() + rnp::frame::HEADER_BYTES, "more is kept than one frame can be");
    }
});
