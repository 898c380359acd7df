//! The preface, and the frames up to the first header block.

use super::*;
use crate::testing::hex;

const SETTINGS: u8 = 4;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

fn http2(host: Option<&str>) -> Probe<HttpRequest> {
    Match(HttpRequest { version: HttpVersion::Http2, host: host.map(str::to_owned) })
}

pub(super) fn frame(typ: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, len @ ..] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&len[..], &[typ, flags], &stream.to_be_bytes(), payload].concat()
}

/// The request of RFC 7541 appendix C.4.1, for `www.example.com`.
pub(super) fn block() -> Vec<u8> {
    hex("828684 41 8c f1e3c2e5f23a6ba0ab90f4ff")
}

fn stream(frames: &[Vec<u8>]) -> Vec<u8> {
    [PREFACE.to_vec(), frames.concat()].concat()
}

#[test]
fn the_preface_is_recognised_at_its_end() {
    for len in 0..PREFACE.len() {
        assert_eq!(probe(false, &PREFACE[..len]), NeedMore, "{len} bytes");
        assert_eq!(probe(true, &PREFACE[..len]), NeedMore, "{len} bytes");
    }
    assert_eq!(probe(false, PREFACE), http2(None));
    assert_eq!(probe(true, PREFACE), NeedMore);
    for at in 0..PREFACE.len() {
        let mut stream = PREFACE.to_vec();
        stream[at] ^= 0x80;
        // Behind the first line it is a bad request of HTTP/1.
        let expected = if at < 16 { NotThis } else { http1(None) };
        let answer = probe(false, &stream);
        assert!(answer == expected || answer == http1(None), "byte {at} changed: {answer:?}");
    }
}

#[test]
fn the_host_is_that_of_the_first_request() {
    let settings = frame(SETTINGS, 0, 0, &hex("0003 00000064"));
    let headers = frame(HEADERS, END_HEADERS, 1, &block());
    let padded = [vec![3], block(), vec![0; 3]].concat();
    let prioritised = [hex("80000000 ff"), block()].concat();
    let both = [vec![2], hex("00000000 0f"), block(), vec![0; 2]].concat();
    let (first, rest) = (block()[..5].to_vec(), block()[5..].to_vec());
    let rows = [
        ("plain", vec![settings.clone(), headers.clone()]),
        ("empty settings", vec![frame(SETTINGS, 0, 0, &[]), headers.clone()]),
        ("window update", vec![settings.clone(), frame(8, 0, 0, &hex("3fff0001")), headers.clone()]),
        ("priority", vec![settings.clone(), frame(2, 0, 3, &hex("00000000 c8")), headers.clone()]),
        ("settings acknowledged", vec![settings.clone(), frame(SETTINGS, 1, 0, &[]), headers.clone()]),
        ("ping", vec![settings.clone(), frame(6, 0, 0, &[0; 8]), headers.clone()]),
        ("unknown type", vec![settings.clone(), frame(0xfa, 0xff, 2, &[1, 2, 3]), headers.clone()]),
        ("stream 15", vec![settings.clone(), frame(HEADERS, END_HEADERS, 15, &block())]),
        ("reserved bit set", vec![settings.clone(), frame(HEADERS, END_HEADERS, 0x8000_0001, &block())]),
        ("end of stream", vec![settings.clone(), frame(HEADERS, END_HEADERS | 1, 1, &block())]),
        ("padding", vec![settings.clone(), frame(HEADERS, END_HEADERS | 8, 1, &padded)]),
        ("priority fields", vec![settings.clone(), frame(HEADERS, END_HEADERS | 0x20, 1, &prioritised)]),
        ("padding and priority fields", vec![settings.clone(), frame(HEADERS, END_HEADERS | 0x28, 1, &both)]),
        ("a second request", vec![settings.clone(), headers.clone(), frame(HEADERS, END_HEADERS, 3, &[0xff])]),
        (
            "reserved bit set in the first fragment only",
            vec![settings.clone(), frame(HEADERS, 0, 0x8000_0001, &first), frame(CONTINUATION, END_HEADERS, 1, &rest)],
        ),
        (
            "continuations",
            vec![
                settings.clone(),
                frame(HEADERS, 0, 1, &first),
                frame(CONTINUATION, 0, 1, &[]),
                frame(CONTINUATION, END_HEADERS, 1, &rest),
            ],
        ),
    ];
    for (row, frames) in rows {
        let stream = stream(&frames);
        assert_eq!(probe(true, &stream), http2(Some("www.example.com")), "{row}");
        assert_eq!(probe(false, &stream), http2(None), "{row}, host not wanted");
    }
}

#[test]
fn wrong_frames_take_away_the_host_only() {
    let settings = frame(SETTINGS, 0, 0, &[]);
    let headers = frame(HEADERS, END_HEADERS, 1, &block());
    let after_settings = |frames: &[Vec<u8>]| [vec![settings.clone()], frames.to_vec()].concat();
    let rows = [
        ("no settings", vec![headers.clone()]),
        ("settings acknowledged first", vec![frame(SETTINGS, 1, 0, &[]), headers.clone()]),
        ("settings on a stream", vec![frame(SETTINGS, 0, 1, &[]), headers.clone()]),
        ("data", after_settings(&[frame(0, 0, 1, &[]), headers.clone()])),
        ("reset", after_settings(&[frame(3, 0, 1, &[0; 4]), headers.clone()])),
        ("push promise", after_settings(&[frame(5, END_HEADERS, 1, &block()), headers.clone()])),
        ("go away", after_settings(&[frame(7, 0, 0, &[0; 8]), headers.clone()])),
        ("continuation of nothing", after_settings(&[frame(CONTINUATION, END_HEADERS, 1, &block())])),
        ("request on stream 0", after_settings(&[frame(HEADERS, END_HEADERS, 0, &block())])),
        ("request on a server's stream", after_settings(&[frame(HEADERS, END_HEADERS, 2, &block())])),
        ("padding longer than the payload", after_settings(&[frame(HEADERS, END_HEADERS | 8, 1, &[2, 0x82])])),
        ("no room for the priority fields", after_settings(&[frame(HEADERS, END_HEADERS | 0x20, 1, &[0; 4])])),
        ("malformed header block", after_settings(&[frame(HEADERS, END_HEADERS, 1, &[0x80])])),
        ("no authority", after_settings(&[frame(HEADERS, END_HEADERS, 1, &hex("828684"))])),
        (
            "another stream between the fragments",
            after_settings(&[frame(HEADERS, 0, 1, &block()), frame(CONTINUATION, END_HEADERS, 3, &[])]),
        ),
        (
            "another frame between the fragments",
            after_settings(&[frame(HEADERS, 0, 1, &block()), frame(6, 0, 0, &[0; 8])]),
        ),
    ];
    for (row, frames) in rows {
        assert_eq!(probe(true, &stream(&frames)), http2(None), "{row}");
    }
}

#[test]
fn payloads_have_at_most_16_kib() {
    let settings = frame(SETTINGS, 0, 0, &[]);
    let headers = frame(HEADERS, END_HEADERS, 1, &block());
    for (len, host) in [(1 << 14, Some("www.example.com")), ((1 << 14) + 1, None)] {
        let frames = [settings.clone(), frame(0xfa, 0, 0, &vec![0; len]), headers.clone()];
        assert_eq!(probe(true, &stream(&frames)), http2(host), "{len} bytes");
    }
}

#[test]
fn the_first_request_ends_within_64_kib() {
    let settings = frame(SETTINGS, 0, 0, &[]);
    let headers = frame(HEADERS, END_HEADERS, 1, &block());
    let filler = frame(0xfa, 0, 0, &[0; (1 << 14) - 1 - 9]);
    let used = PREFACE.len() + settings.len() + 3 * filler.len() + headers.len();
    for (excess, host) in [(0, Some("www.example.com")), (1, None)] {
        let last = frame(0xfa, 0, 0, &vec![0; MAX_HEAD - used - 9 + excess]);
        let frames = [settings.clone(), filler.repeat(3), last, headers.clone()];
        assert_eq!(stream(&frames).len(), MAX_HEAD + excess);
        assert_eq!(probe(true, &stream(&frames)), http2(host), "{excess} bytes too many");
    }
    // A frame that leaves room for less than one more header.
    let last = frame(0xfa, 0, 0, &vec![0; MAX_HEAD - (used - headers.len()) - 9 - 8]);
    let frames = stream(&[settings, filler.repeat(3), last]);
    assert_eq!(frames.len(), MAX_HEAD - 8);
    assert_eq!(probe(true, &frames), http2(None), "eight bytes left");
}
