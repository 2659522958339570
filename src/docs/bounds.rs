//! What values the document allows, and what more operations take in the same manner. A parameter or a field of one name
//! means the same in every operation, so its bounds are said here once, and not in each of the rooms.

use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{Object, ObjectBuilder, Schema, SchemaType, Type};
use utoipa::openapi::{ContentBuilder, OpenApi, Ref, RefOr, Required, ResponseBuilder};

use crate::http::page::{DEFAULT_LIMIT, MAX_LIMIT};
use crate::http::problem::{BODY_TOO_LARGE, IDEMPOTENCY_SPENT, Kind, MEDIA_TYPE, TOO_SLOW};
use crate::idempotency::http::{LONGEST, TAKERS};

/// Semver 2.0, with numbers of up to 15 digits.
const VERSION: &str = r"^(0|[1-9][0-9]{0,14})\.(0|[1-9][0-9]{0,14})\.(0|[1-9][0-9]{0,14})(-(0|[1-9][0-9]{0,14}|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*)(\.(0|[1-9][0-9]{0,14}|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*))*)?(\+[0-9a-zA-Z-]+(\.[0-9a-zA-Z-]+)*)?$";
/// A row's number or UUID.
const HANDLE: &str = r"^(0|[1-9][0-9]{0,17}|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})$";
/// Names that others chose.
const OPAQUE: &str = r"^[^\u0000-\u001f\u007f-\u009f]{1,64}$";
/// What printers show.
const PRINTER_KEY: &str = r"^[^\u0000-\u001f\u007f-\u009f]{8,256}$";
const KEY_ID: &str = "^[0-9a-f]{12}$";
const ETAG: &str = r#"^(\*|(W/)?"[0-9]{1,18}(-[0-9a-f]+)?")$"#;
const SHA256: &str = "^[0-9a-fA-F]{64}$";
const MD5: &str = "^[0-9a-fA-F]{32}$";
const FORMAT: &str = "^(csv|ndjson)$";
/// Where an order is named, each name is a word before the semicolon.
const NO_ORDERS: [&str; 4] = ["of", "the", "targets", "or"];

/// Adds the bounds, the refusals of whatever takes a body, and the header for whatever may be sent again.
pub fn add(document: &mut OpenApi) {
    for item in document.paths.paths.values_mut() {
        let all = [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch];
        for operation in all.into_iter().flatten() {
            for parameter in operation.parameters.iter_mut().flatten() {
                if let RefOr::T(parameter) = parameter {
                    bound(parameter);
                }
            }
            if operation.request_body.is_some() {
                refusals(operation, &[&TOO_SLOW, &BODY_TOO_LARGE, &MEDIA_TYPE]);
            }
            if operation.operation_id.as_deref().is_some_and(|id| TAKERS.contains(&id)) {
                operation.parameters.get_or_insert_default().push(idempotency_key().into());
                refusals(operation, &[&IDEMPOTENCY_SPENT]);
            }
        }
    }
    let schemas = document.components.iter_mut().flat_map(|components| components.schemas.values_mut());
    for schema in schemas {
        if let RefOr::T(Schema::Object(object)) = schema {
            for (name, property) in &mut object.properties {
                if let RefOr::T(Schema::Object(property)) = property {
                    field(name, property);
                }
            }
        }
    }
}

fn bound(parameter: &mut Parameter) {
    let orders = parameter.description.as_deref().map(orders);
    let Some(RefOr::T(Schema::Object(schema))) = &mut parameter.schema else { return };
    match parameter.name.as_str() {
        "limit" => {
            schema.minimum = Some(1.into());
            schema.maximum = Some(MAX_LIMIT.into());
            schema.default = Some(DEFAULT_LIMIT.into());
        }
        "sort" => schema.pattern = orders,
        "format" => schema.pattern = Some(FORMAT.into()),
        "version" | "firmware_version" => version(schema),
        "rollout_id" => schema.pattern = Some(HANDLE.into()),
        "printer_id" | "user_id" => schema.pattern = Some(OPAQUE.into()),
        // A key of printers has a UUID.
        "key_id" if schema.format.is_none() => schema.pattern = Some(KEY_ID.into()),
        "If-Match" => schema.pattern = Some(ETAG.into()),
        _ => {}
    }
}

/// `number or created_at; …` as a pattern for either, in both directions.
fn orders(description: &str) -> String {
    let named =
        description.split(';').next().and_then(|text| text.split(" unless").next()).unwrap_or_default();
    let words = named.split(|c: char| !c.is_ascii_lowercase() && c != '_');
    let words: Vec<_> = words.filter(|word| !word.is_empty() && !NO_ORDERS.contains(word)).collect();
    format!("^-?({})$", words.join("|"))
}

fn version(schema: &mut Object) {
    schema.pattern = Some(VERSION.into());
    schema.max_length = Some(64);
}

fn field(name: &str, schema: &mut Object) {
    let is_text = match &schema.schema_type {
        SchemaType::Type(kind) => *kind == Type::String,
        SchemaType::Array(kinds) => kinds.contains(&Type::String),
        SchemaType::AnyValue => false,
    };
    match name {
        "version"
        | "firmware_version"
        | "to_version"
        | "min_version"
        | "max_version"
        | "min_upgrade_version"
        | "previous_version"
            if is_text && schema.format.is_none() =>
        {
            version(schema);
        }
        "user_id" | "printer_id" if is_text => schema.pattern = Some(OPAQUE.into()),
        "api_key" if is_text => schema.pattern = Some(PRINTER_KEY.into()),
        "sha256" if is_text => schema.pattern = Some(SHA256.into()),
        "md5" | "md5_checksum" if is_text => schema.pattern = Some(MD5.into()),
        _ => {}
    }
}

fn refusals(operation: &mut Operation, kinds: &[&Kind]) {
    for Kind { status, title, .. } in kinds {
        // What the operation says of it itself stays.
        operation.responses.responses.entry(status.to_string()).or_insert_with(|| {
            let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
            let response = ResponseBuilder::new().description(*title);
            response.content("application/problem+json", content).build().into()
        });
    }
}

fn idempotency_key() -> Parameter {
    let schema = ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(1))
        .max_length(Some(LONGEST))
        .pattern(Some("^[!-~]+$"));
    ParameterBuilder::new()
        .name("Idempotency-Key")
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(
            "Made up by whoever asks, as a UUID is. Sent again with the same key within 24 hours, a request that was \
             carried out changes nothing more and gets the answer of the first, with `Idempotency-Replayed: true`. \
             Another request with the same key gets 422. What changed nothing does not use the key up.",
        ))
        // No example: whoever pastes it into two requests would meet a refusal.
        .schema(Some(schema))
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_read_from_their_description() {
        assert_eq!(
            orders("released_at, version or number; - in front turns it round"),
            "^-?(released_at|version|number)$"
        );
        assert_eq!(orders("of the targets: number; -number, the newest first, unless given"), "^-?(number)$");
    }
}
