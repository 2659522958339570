-- Uploads whose bytes go from the client straight into S3, between their begin and their completion.
create table firmware_uploads (
    id uuid primary key,
    upload_id text not null,
    fields jsonb not null check (jsonb_typeof(fields) = 'object'),
    file_size bigint not null check (file_size > 0),
    parts integer not null check (parts between 1 and 10000),
    expires_at timestamptz not null
);

create index firmware_uploads_expiry on firmware_uploads (expires_at);

comment on table firmware_uploads is 'Direct uploads that were begun and not completed. Completing takes the row; abandoned ones expire.';
comment on column firmware_uploads.id is 'UUID v7; names the staging object, and becomes the release''s id.';
comment on column firmware_uploads.upload_id is 'S3''s name of the multipart upload.';
comment on column firmware_uploads.fields is 'The text fields that describe the release, as they were sent.';
comment on column firmware_uploads.file_size is 'Bytes that the file must have.';
comment on column firmware_uploads.parts is 'How many parts were handed out.';
comment on column firmware_uploads.expires_at is 'When the parts'' URLs end, and with them the upload.';
