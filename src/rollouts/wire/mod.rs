//! The bodies of the rollouts' requests and answers.

mod request;
mod view;

pub(super) use self::request::Errors;
pub use self::request::{ApprovalBody, CreateRollout, ForceBody, PatchRollout, RollbackBody};
pub use self::view::{RetryView, RollbackView, RolloutDetails, RolloutList, RolloutView};
use super::Error;
use crate::http::problem::{FieldError, Problem};

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        use crate::http::problem;
        match error {
            Error::Invalid(errors) => Self::invalid(
                errors.into_iter().map(|(field, detail)| FieldError { field, detail }).collect(),
            ),
            Error::FirmwareNotFound(why) => Self::new(
                &problem::FIRMWARE_NOT_FOUND,
                format!(
                    "Firmware version not found: {why}; list the releases with GET /api/firmware, or upload it first."
                ),
            ),
            Error::NotFound(_) => Self::new(
                &problem::ROLLOUT_NOT_FOUND,
                format!("Rollout not found: {error}; list the rollouts with GET /api/rollouts."),
            ),
            Error::Conflict(why) => Self::new(&problem::ROLLOUT_CONFLICT, why),
            Error::Stale(_) => Self::new(
                &problem::PRECONDITION,
                format!("Somebody changed it in the meantime: {error}; GET it again and decide again."),
            ),
            Error::Database(error) => error.into(),
        }
    }
}
