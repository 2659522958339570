use proptest::prelude::*;

use super::images::{Core, Esp32, esp8266, gzip, gzip_by_hand, secure_boot, sign};
use super::*;

/// One of each kind.
fn pool() -> Vec<(Platform, Vec<u8>)> {
    let new = esp8266(Core::Since30);
    let esp8266s = [
        new.clone(),
        esp8266(Core::Since26),
        esp8266(Core::Before26),
        sign(new.clone()),
        gzip(&new),
        gzip_by_hand(&new),
        sign(gzip(&new)),
    ];
    let mut pool: Vec<_> = esp8266s.into_iter().map(|image| (Platform::Esp8266, image)).collect();
    pool.push((Platform::Esp32, Esp32::ESP32.build()));
    pool.push((Platform::Esp32C3, secure_boot(Esp32::C3.build())));
    pool.push((Platform::Esp32S3, Esp32 { described: false, hashed: false, ..Esp32::S3 }.build()));
    pool
}

/// An image of the pool, whole or with some bytes changed, cut off or added.
fn images() -> impl Strategy<Value = (Platform, Vec<u8>)> {
    let change = (any::<prop::sample::Index>(), any::<u8>());
    let changes = prop::collection::vec(change, 0..4);
    let cut = prop::option::weighted(0.3, any::<prop::sample::Index>());
    let added = prop_oneof![3 => Just(0..1_usize), 1 => Just(1..300)];
    let added = added.prop_flat_map(|length| prop::collection::vec(any::<u8>(), length));
    (prop::sample::select(pool()), changes, cut, added).prop_map(
        |((platform, mut image), changes, cut, added)| {
            for (at, byte) in changes {
                let at = at.index(image.len());
                image[at] = byte;
            }
            if let Some(cut) = cut {
                image.truncate(cut.index(image.len()));
            }
            image.extend(added);
            (platform, image)
        },
    )
}

/// Bytes that mean nothing, some of them behind the beginning of an image or a gzip.
fn strangers() -> impl Strategy<Value = Vec<u8>> {
    let beginnings: Vec<Vec<u8>> = [
        &[][..],
        &[0xE9, 2, 0, 0, 0, 0xF0, 0x10, 0x40],
        &[0xE9, 1, 0, 0, 0, 0, 0x08, 0x40, 0xEE, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        &[0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 3],
        &[0x1F, 0x8B, 8, 0x1E],
    ]
    .map(<[u8]>::to_vec)
    .to_vec();
    let rest = prop::collection::vec(any::<u8>(), 0..6000);
    (prop::sample::select(beginnings), rest).prop_map(|(mut bytes, rest)| {
        bytes.extend(rest);
        bytes
    })
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic_or_pass(platform in prop::sample::select(Platform::ALL), bytes in strangers()) {
        prop_assert!(inspect(platform, &bytes).is_err());
    }

    #[test]
    fn where_the_slices_end_does_not_matter(
        (platform, image) in images(),
        declared in prop::option::weighted(0.2, prop::sample::select(Platform::ALL)),
        sizes in prop::collection::vec(prop_oneof![1..20_usize, 1..1500_usize, 1..9000_usize], 1..12),
    ) {
        let platform = declared.unwrap_or(platform);
        prop_assert_eq!(inspect_in(platform, &image, &sizes), inspect(platform, &image));
    }

    #[test]
    fn where_the_slices_end_does_not_matter_to_strangers(
        bytes in strangers(),
        sizes in prop::collection::vec(1..700_usize, 1..8),
    ) {
        let platform = Platform::Esp8266;
        prop_assert_eq!(inspect_in(platform, &bytes, &sizes), inspect(platform, &bytes));
    }

    #[test]
    fn a_flipped_bit_is_refused_or_changes_nothing_that_is_covered(
        (platform, image) in prop::sample::select(pool()),
        at in any::<prop::sample::Index>(),
        bit in 0..8_u8,
    ) {
        flip(platform, &image, at.index(image.len()), bit)?;
    }
}

#[test]
fn every_flipped_bit_of_headers_words_and_ends_is_refused_too() {
    for (platform, image) in pool() {
        let end = image.len();
        let places = [0..64, 700..716, 780..808, 1060..1110, 4080..4128, end - 24..end, end - 264..end - 252];
        for at in places.into_iter().flatten().filter(|at| *at < end) {
            for bit in 0..8 {
                flip(platform, &image, at, bit).unwrap();
            }
        }
    }
}

/// Flips one bit of a good image: it is refused, or it stands where the module says that nothing covers it.
fn flip(platform: Platform, image: &[u8], at: usize, bit: u8) -> Result<(), TestCaseError> {
    let mut flipped = image.to_vec();
    flipped[at] ^= 1 << bit;
    let (before, after) = (inspect(platform, image), inspect(platform, &flipped));
    let Ok(good) = &before else { return Err(TestCaseError::fail(format!("{before:?}"))) };
    let Ok(passed) = &after else { return Ok(()) };
    let (whole, signature, secure_boot) = (0..image.len(), 5440..5696, 4097..8192);
    let uncovered = match good {
        // What was unpacked is the same to the bit. What changed is a date, a name or a bit that fills a byte up.
        Findings { format: Format::Gzip, .. } => std::slice::from_ref(&whole),
        Findings { platform: Platform::Esp8266, signed: true, .. } => std::slice::from_ref(&signature),
        Findings { signed: true, .. } => std::slice::from_ref(&secure_boot),
        // A core before 2.6: headers, filling and zeros.
        Findings { platform: Platform::Esp8266, crc: None, .. } => {
            &[0..16, 716..719, 720..4112, 5012..5020, 5353..5361, 5425..5439]
        }
        // An ESP32's image without its hash: headers and zeros.
        Findings { platform: Platform::Esp32S3, .. } => &[0..32, 432..440, 540..548, 1048..1055],
        _ => &[],
    };
    let changed = passed != good && (good.crc.is_some() || good.sha256_appended);
    let covered = changed || !uncovered.iter().any(|places| places.contains(&at));
    prop_assert!(!covered, "bit {} at {} passes: {:?}", bit, at, passed);
    Ok(())
}
