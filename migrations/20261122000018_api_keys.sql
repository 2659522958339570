-- Keys of REST.
create table api_keys (
    -- Public: what stands between `pmk_` and the secret.
    id text primary key check (id ~ '^[0-9a-f]{12}$'),
    -- The order of lists.
    number bigint generated always as identity unique,
    -- For people.
    name text not null check (char_length(name) between 1 and 100),
    -- What its holder may do.
    role text not null check (role in ('admin', 'release', 'operator', 'viewer')),
    -- Of the whole key. Its secret is 256 random bits, so a slow hash would add nothing.
    secret_sha256 bytea not null check (length(secret_sha256) = 32),
    -- The secret before the last rotation, and until when it opens.
    previous_sha256 bytea check (length(previous_sha256) = 32),
    previous_until timestamptz,
    -- When it was made, and by whom: `key <id>`, `bootstrap`, `cli`, or `anonymous` while authentication is off.
    created_at timestamptz not null,
    created_by text not null,
    -- From then on it opens nothing.
    expires_at timestamptz,
    -- Since then it opens nothing, for good.
    revoked_at timestamptz,
    -- To the minute.
    last_used_at timestamptz,
    check ((previous_sha256 is null) = (previous_until is null))
);
