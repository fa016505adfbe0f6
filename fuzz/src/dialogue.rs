//! What an evaluator and a daemon say to each other, made up by a fuzzer.
//!
//! A dialogue is pieces: two bytes, whose highest bit tells that the daemon says it and whose others
//! how many bytes follow, and the bytes. Behind the first of all stands how small the pieces are
//! that it is handed in.

use ferry_trace::protocol::{Conversation, Event};

use crate::{take, take_u16};

/// The newest version that is passed on, and the feature.
const NEWEST: u64 = 0x127;
const BY_PATH: &[u8] = b"realisation-with-path-not-hash";

/// One side's part.
#[derive(Default)]
struct Side {
    said: Vec<u8>,
    heard: Vec<u8>,
}

/// Both sides, and what was understood.
#[derive(Default)]
struct Followed {
    client: Side,
    daemon: Side,
    events: Vec<Event>,
}

/// Follows a dialogue twice, in different pieces. Whatever comes: no panic; the same is understood
/// and passed on; and that is what was said, but for the versions and the features of the greeting.
///
/// # Panics
/// Where that does not hold.
pub fn dialogue(data: &[u8]) {
    let Some((size, rest)) = data.split_first() else { return };
    let whole = follow(rest, usize::MAX);
    let pieces = follow(rest, usize::from(*size).max(1));
    assert_eq!(whole.events, pieces.events);
    for (one, other) in [(&whole.client, &pieces.client), (&whole.daemon, &pieces.daemon)] {
        assert_eq!(one.heard, other.heard);
        assert!(may_be_heard(one), "{:?} for {:?}", one.heard, one.said);
    }
}

fn follow(mut rest: &[u8], size: usize) -> Followed {
    let mut conversation = Conversation::new();
    let mut followed = Followed::default();
    let Followed { client, daemon, events } = &mut followed;
    while !rest.is_empty() {
        let head = take_u16(&mut rest);
        let said = take(&mut rest, head & 0x7fff);
        let is_lost = matches!(events.last(), Some(Event::LostTrack(_)));
        for piece in said.chunks(size) {
            let (side, heard) = match head >> 15 {
                0 => (&mut *client, conversation.from_client(piece, events)),
                _ => (&mut *daemon, conversation.from_daemon(piece, events)),
            };
            // What was held back may come before it.
            assert!(!is_lost || heard.ends_with(piece));
            side.said.extend_from_slice(piece);
            side.heard.extend_from_slice(&heard);
        }
        assert!(!is_lost || matches!(events.last(), Some(Event::LostTrack(_))));
    }
    followed
}

/// Whether this is what was said, up to what is held back, with or without the changes that there
/// can be: another version, and other features.
fn may_be_heard(side: &Side) -> bool {
    let Side { said, heard } = side;
    let mut ways = vec![said.clone()];
    let version = said.get(8..16).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes);
    if version.is_some_and(|version| version > NEWEST) {
        let newest = NEWEST.to_le_bytes();
        ways.push([&said[..8], &newest, &said[16..]].concat());
    }
    if let Some(end) = end_of_features(said) {
        let length = (BY_PATH.len() as u64).to_le_bytes();
        let one = [&1u64.to_le_bytes()[..], &length, BY_PATH, &[0, 0]].concat();
        for head in ways.clone() {
            for features in [&[0; 8][..], &one] {
                ways.push([&head[..16], features, &said[end..]].concat());
            }
        }
    }
    ways.iter().any(|way| {
        let held = way.len().saturating_sub(heard.len());
        // Only a greeting is held back.
        way.starts_with(heard) && (held == 0 || heard.len() <= 16)
    })
}

/// Where a list of strings ends that stands behind a version.
fn end_of_features(said: &[u8]) -> Option<usize> {
    let number = |place: usize| {
        let bytes = said.get(place..place.checked_add(8)?)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    };
    let mut place = 24_usize;
    for _ in 0..number(16)? {
        let length = usize::try_from(number(place)?.checked_next_multiple_of(8)?).ok()?;
        place = place.checked_add(8)?.checked_add(length)?;
        if place > said.len() {
            return None;
        }
    }
    Some(place)
}
