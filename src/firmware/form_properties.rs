//! The form's parser against whatever may come: it ends, it tells the truth, and it does not care how bytes are cut.

use std::convert::Infallible;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use proptest::prelude::*;

use super::form::Form;
use super::{Draft, Error};

const BOUNDARY: &str = "b0undary";

/// What a form said: its text fields and the bytes of its file.
type Read = (Draft, Option<Vec<u8>>);

/// Reads a body that arrives in pieces of these sizes, over and over.
fn read(content_type: &str, body: &[u8], sizes: &[usize]) -> Result<Read, Error> {
    let mut left = body;
    let mut sizes = sizes.iter().copied().cycle();
    let mut pieces = Vec::new();
    while !left.is_empty() {
        let (piece, rest) = left.split_at(sizes.next().unwrap_or(left.len()).clamp(1, left.len()));
        pieces.push(Ok::<_, Infallible>(Bytes::copy_from_slice(piece)));
        left = rest;
    }
    let body = Body::from_stream(stream::iter(pieces)).into_data_stream();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let mut form = Form::new(content_type, body)?;
        let mut file = None;
        while let Some(mut found) = form.next_file().await? {
            let bytes: &mut Vec<u8> = file.get_or_insert_default();
            found.content_digest()?;
            while let Some(chunk) = found.chunk().await? {
                bytes.extend_from_slice(&chunk);
            }
        }
        Ok((form.draft()?, file))
    })
}

fn kind() -> String {
    format!("multipart/form-data; boundary={BOUNDARY}")
}

fn form(notes: &str, file: &[u8], file_first: bool) -> Vec<u8> {
    let text = |name: &str, value: &str| {
        format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
            .into_bytes()
    };
    let head =
        format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.bin\"\r\n\r\n");
    let file = [head.as_bytes(), file, b"\r\n"].concat();
    let fields = [text("version", "1.5.0"), text("release_notes", notes)].concat();
    let parts = if file_first { [file, fields] } else { [fields, file] };
    [parts.concat(), format!("--{BOUNDARY}--\r\n").into_bytes()].concat()
}

proptest! {
    #[test]
    fn whatever_comes_is_read_to_an_end(
        body in prop::collection::vec(any::<u8>(), 0..2000),
        kind in ".{0,60}",
        sizes in prop::collection::vec(1usize..300, 1..5),
    ) {
        let _ = read(&kind, &body, &sizes);
        let _ = read(&self::kind(), &body, &sizes);
        let begun = [format!("--{BOUNDARY}\r\n").as_bytes(), &body].concat();
        prop_assert!(read(&self::kind(), &begun, &sizes).is_err(), "no version was named");
    }

    #[test]
    fn a_form_says_the_same_however_it_is_cut(
        notes in "[^\0\r\n]{0,300}",
        file in prop::collection::vec(any::<u8>(), 0..3000),
        sizes in prop::collection::vec(1usize..200, 1..6),
        file_first in any::<bool>(),
    ) {
        prop_assume!(!notes.contains(BOUNDARY));
        let (draft, bytes) = read(&kind(), &form(&notes, &file, file_first), &sizes).unwrap();
        prop_assert_eq!(draft.version.to_string(), "1.5.0");
        prop_assert_eq!(draft.release_notes.unwrap_or_default(), notes);
        prop_assert_eq!(bytes, Some(file));
    }

    #[test]
    fn a_form_that_breaks_off_is_never_a_whole_one(
        file in prop::collection::vec(any::<u8>(), 0..500),
        at in 0.0f64..1.0,
        sizes in prop::collection::vec(1usize..200, 1..4),
    ) {
        let whole = form("notes", &file, true);
        // What follows the last boundary's hyphens may be missing.
        let end = whole.len() - 2;
        let cut = &whole[..(end as f64 * at) as usize];
        prop_assert!(read(&kind(), cut, &sizes).is_err());
    }

    #[test]
    fn a_few_wrong_bytes_break_nothing_but_the_form(
        notes in ".{0,100}",
        wrong in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut body = form(&notes, &[0xe9; 200], false);
        for (at, byte) in wrong {
            let at = at.index(body.len());
            body[at] = byte;
        }
        let _ = read(&kind(), &body, &[64]);
    }
}
