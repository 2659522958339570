//! The configuration table.

/// One line of the configuration table.
pub struct Setting {
    /// The variable.
    pub name: &'static str,
    /// What holds when it is not set; empty when it must be set.
    pub default: &'static str,
    /// What it does, with its unit.
    pub meaning: &'static str,
}

const fn setting(name: &'static str, default: &'static str, meaning: &'static str) -> Setting {
    Setting { name, default, meaning }
}

/// Every variable that the server reads itself. AWS's and OpenTelemetry's keep their standard names and meanings.
pub const SETTINGS: &[Setting] = &[
    setting("DATABASE_URL", "", "PostgreSQL, as postgres://user:password@host:5432/database"),
    setting("DATABASE_URL_FILE", "", "file with DATABASE_URL in it, instead; both is an error"),
    setting(
        "DATABASE_PASSWORD_FILE",
        "",
        "file with the password alone, for a DATABASE_URL without one; read again when it changes",
    ),
    setting(
        "DATABASE_MAX_CONNECTIONS",
        "20",
        "connections that one replica may hold, besides one for LISTEN",
    ),
    setting("S3_BUCKET", "firmware", "bucket of the images"),
    setting(
        "S3_PUBLIC_ENDPOINT",
        "that of AWS_ENDPOINT_URL_S3",
        "S3 endpoint as printers reach it, put into presigned URLs",
    ),
    setting(
        "S3_PATH_STYLE",
        "true when an endpoint is set",
        "http://host/bucket/key instead of http://bucket.host/key",
    ),
    setting(
        "S3_SERVER_SIDE_ENCRYPTION",
        "as the bucket says",
        "encryption that every object is written with: `AES256`, `aws:kms` or `aws:kms:dsse`",
    ),
    setting("S3_SSE_KMS_KEY_ID", "AWS's own key", "KMS key for it, by id, alias or ARN"),
    setting(
        "S3_CHECKSUM",
        "crc32",
        "checksum that S3 checks and keeps: `crc32`, `crc32c`, `crc64nvme`, `sha1`, `sha256` or `none`",
    ),
    setting("BASE_URL", "http://localhost:8000", "this server as others reach it, put into file_url"),
    setting("LISTEN_ADDR", "0.0.0.0:8000", "address of REST and of the printers' sockets"),
    setting("INTERNAL_ADDR", "0.0.0.0:9000", "address of /livez, /readyz and /metrics; not for the public"),
    setting("AUTH", "on", "`on`: REST needs a key; `off`: it does not, allowed on loopback addresses only"),
    setting(
        "OPEN_TO_EVERYBODY_WHO_REACHES_IT",
        "no",
        "`yes` allows AUTH=off on any address: whoever reaches it may install anything on every printer",
    ),
    setting(
        "BOOTSTRAP_ADMIN_KEY_FILE",
        "",
        "file with a first admin key for REST, at least 24 characters; keys are made with it, or with `paperminder-ota key create`",
    ),
    setting("SESSION_SECONDS", "43200", "longest life of a login; 300 to 2592000"),
    setting(
        "SESSION_IDLE_SECONDS",
        "3600",
        "silence, to the minute, after which a login is over; 120 to 2592000",
    ),
    setting("OIDC_ISSUER", "", "OpenID Connect issuer of people and pipelines, as in its tokens' `iss`"),
    setting("OIDC_CLIENT_ID", "", "what this server is to the issuer; without it nobody logs in by browser"),
    setting("OIDC_CLIENT_SECRET_FILE", "", "file with the client's secret; none for a public client"),
    setting("OIDC_SCOPES", "openid profile email", "scopes that a login asks for, separated by spaces"),
    setting("OIDC_AUDIENCE", "that of OIDC_CLIENT_ID", "`aud` that a token must have to open REST"),
    setting(
        "OIDC_ROLE_CLAIM",
        "groups",
        "claim that tells what somebody is, with dots for what is inside, as in realm_access.roles",
    ),
    setting(
        "OIDC_ROLES",
        "",
        "roles by the claim's value, as in `ota-admins=admin,acme/printer=release`; `*` is everybody of the issuer",
    ),
    setting(
        "OIDC_USERS_CLAIM",
        "",
        "claim that tells whose printers somebody sees; `*` in it: everybody's; unset: everybody sees all",
    ),
    setting(
        "PRINTER_AUTH",
        "enroll",
        "`enroll`: a printer's first api_key is bound to it; `registered`: only keys made beforehand; `open`: no keys, for development",
    ),
    setting(
        "WRONG_PRINTER_KEYS_PER_ADDRESS",
        "600",
        "wrong keys of printers a minute from one address; beyond it, only printers that were let in before are heard",
    ),
    setting(
        "CORS_ALLOWED_ORIGINS",
        "none",
        "origins of browser pages that may call REST, separated by commas, also with a session's cookie; or *, without",
    ),
    setting(
        "TRUSTED_PROXIES",
        "none",
        "networks of proxies whose X-Forwarded-For is believed, as in 10.0.0.0/8,fd00::/8",
    ),
    setting(
        "REQUESTS_PER_KEY",
        "12000",
        "requests of REST a minute with one key, on one replica; further ones get 429",
    ),
    setting("REQUESTS_PER_ADDRESS", "12000", "requests of REST a minute from one address, without a key"),
    setting(
        "WRONG_KEYS_PER_ADDRESS",
        "300",
        "requests a minute from one address with keys that opened nothing lately; further ones get 429 without a query",
    ),
    setting(
        "TLS_CERT_FILE",
        "",
        "certificate chain as PEM, for HTTPS and WSS without a proxy; read again when it changes",
    ),
    setting("TLS_KEY_FILE", "", "its private key as PEM; goes with TLS_CERT_FILE"),
    setting("MAX_FIRMWARE_SIZE", "5242880", "largest image, in bytes"),
    setting(
        "UPLOAD_TIMEOUT_SECONDS",
        "900",
        "longest time for one upload, from its first byte to its last; up to 43200",
    ),
    setting(
        "MAX_CONCURRENT_UPLOADS",
        "24",
        "uploads that may hold a 5 MiB buffer at once; further ones wait",
    ),
    setting(
        "GC_EVERY_SECONDS",
        "3600",
        "how often one replica removes from the bucket what no release names; 0 for never",
    ),
    setting(
        "DELIVERY",
        "presigned",
        "how printers get images: `presigned` S3 URLs, a `cdn`, or a `link` of this server",
    ),
    setting(
        "MAX_URL_LENGTH",
        "512",
        "longest URL for a printer that does not say what it takes; beyond it it gets a link",
    ),
    setting("PRESIGN_EXPIRES_SECONDS", "3600", "life of every kind of download URL, 60 to 604800"),
    setting("CDN_BASE_URL", "", "the CDN in front of the bucket; needed for DELIVERY=cdn"),
    setting("CDN_KEY_PAIR_ID", "", "id of the CloudFront public key; URLs are signed when it is set"),
    setting(
        "CDN_PRIVATE_KEY_FILE",
        "",
        "its private key as PEM, ECDSA P-256 or RSA-2048; goes with CDN_KEY_PAIR_ID",
    ),
    setting(
        "MAX_CONCURRENT_DOWNLOADS",
        "1000",
        "downloads through links that one replica streams at once; further ones get 503",
    ),
    setting(
        "DOWNLOAD_CACHE_BYTES",
        "33554432",
        "images in memory for downloads through links, each up to a quarter of it; 0 for none",
    ),
    setting("DOWNLOADS_PER_ADDRESS", "1200", "downloads through links that one address may start a minute"),
    setting(
        "MAX_ATTEMPTS",
        "3",
        "tries of one rollout with one printer before it counts as failed, 1 to 100",
    ),
    setting(
        "RETRY_BACKOFF_SECONDS",
        "30",
        "wait before a second try; doubles with each further one, up to a day",
    ),
    setting("STUCK_AFTER_SECONDS", "1800", "silence after which an open update fails with reason `timeout`"),
    setting(
        "MAX_EVENT_STREAMS",
        "100",
        "clients that may watch events on one replica at once; further ones get 503",
    ),
    setting("EVENTS_RETENTION_HOURS", "24", "how long a client may be away and still be told what it missed"),
    setting(
        "MAX_CONCURRENT_EXPORTS",
        "2",
        "exports that one replica streams at once, each with a database connection; further ones get 503",
    ),
    setting("MAX_CONNECTIONS", "16000", "printers' sockets that one replica holds; further ones get 503"),
    setting(
        "MAX_OPEN_CONNECTIONS",
        "MAX_CONNECTIONS and 4000 more",
        "connections of every kind that one replica holds; further ones get 503",
    ),
    setting(
        "CONNECTS_PER_SECOND",
        "2000",
        "sockets that one replica takes a second; further ones get 503 without a query",
    ),
    setting(
        "CONNECTS_PER_ADDRESS",
        "60000",
        "sockets that one address, which may be a proxy's, may open a minute",
    ),
    setting(
        "MESSAGES_PER_PRINTER",
        "600",
        "messages a minute that are read from one printer's socket; further ones wait, and none is lost",
    ),
    setting(
        "DRAIN_SECONDS",
        "30",
        "time over which sockets are let go on SIGTERM, longer when they are more than 250 a second",
    ),
    setting("LOG_FORMAT", "text", "`text` for people, `json` for machines"),
    setting("RUST_LOG", "info", "log levels, as in `info,sqlx=warn`"),
];
