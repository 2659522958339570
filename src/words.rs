//! The closed vocabularies that releases and printers share: channels and platforms.

/// A word that is not in the vocabulary.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not one of {allowed}")]
pub struct UnknownWord {
    given: String,
    allowed: String,
}

impl UnknownWord {
    pub(crate) fn new(given: &str, allowed: impl Iterator<Item = &'static str>) -> Self {
        Self { given: given.chars().take(64).collect(), allowed: allowed.collect::<Vec<_>>().join(", ") }
    }
}

// A word is a `tt`, not a `literal`: utoipa does not look into the group that a literal becomes, and would show the variant.
macro_rules! vocabulary {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:tt),+ $(,)? }) => {
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default,
                 serde::Serialize, serde::Deserialize, utoipa::ToSchema, sqlx::Type)]
        $(#[$doc])*
        #[sqlx(type_name = "text")]
        pub enum $name {
            $($(#[$vdoc])* #[serde(rename = $word)] #[sqlx(rename = $word)] $variant),+
        }

        impl $name {
            /// Every word, in the order of declaration.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The word as it stands in messages, columns and URLs.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::words::UnknownWord;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let found = Self::ALL.iter().copied().find(|word| word.as_str() == text);
                found.ok_or_else(|| $crate::words::UnknownWord::new(text, Self::ALL.iter().map(|word| word.as_str())))
            }
        }
    };
}
pub(crate) use vocabulary;

vocabulary!(
    /// How far a release has come. Declared from the most stable one, which is also the order of preference.
    Channel {
        /// For everyone.
        #[default]
        Stable = "stable",
        /// For those who asked for news.
        Beta = "beta",
        /// For the first few.
        Canary = "canary",
    }
);

vocabulary!(
    /// The chip family that an image runs on.
    Platform {
        /// ESP8266 and ESP8285.
        #[default]
        Esp8266 = "esp8266",
        /// The first ESP32.
        Esp32 = "esp32",
        /// ESP32-S2.
        Esp32S2 = "esp32-s2",
        /// ESP32-S3.
        Esp32S3 = "esp32-s3",
        /// ESP32-C3.
        Esp32C3 = "esp32-c3",
    }
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_a_round_trip_and_strangers_are_named() {
        for platform in Platform::ALL {
            assert_eq!(platform.as_str().parse(), Ok(*platform));
        }
        use utoipa::PartialSchema as _;
        let documented =
            serde_json::to_value(Platform::schema()).ok().map(|schema| schema["enum"].to_string());
        assert_eq!(documented, serde_json::to_string(Platform::ALL).ok());
        let error = "nightly".parse::<Channel>().map_err(|error| error.to_string());
        assert_eq!(error, Err("`nightly` is not one of stable, beta, canary".to_owned()));
    }
}
