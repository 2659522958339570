create table schema_floor (
    only_row boolean primary key default true check (only_row),
    oldest_release text not null
);
insert into schema_floor (oldest_release) values ('0.1.0');

comment on table schema_floor is 'Which releases of the server this schema still serves: a migration that takes something away names the first release that does without it.';
comment on column schema_floor.only_row is 'There is one row.';
comment on column schema_floor.oldest_release is 'Semantic version: an older server neither starts nor says that it is ready.';
