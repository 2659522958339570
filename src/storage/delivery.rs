//! How a printer gets an image: today a presigned URL.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use chrono::TimeDelta;

use super::{Error, ObjectKey, Store};
use crate::clock::{Clock, Time};

/// How long one URL serves many printers at most, because signing costs more than sending. A tenth of the URL's life
/// if that is shorter, so that every printer gets one with at least nine tenths of it left.
const SHARED_FOR: TimeDelta = TimeDelta::seconds(60);
/// Distinct releases that are offered within a minute; beyond it the oldest half is forgotten.
const REMEMBERED: usize = 64;

/// URLs, and when they were made.
type Recent = HashMap<ObjectKey, (Time, Arc<str>)>;

/// Makes URLs when they are needed; none is ever stored.
#[derive(Clone)]
pub struct Delivery {
    store: Store,
    clock: Clock,
    shared_for: TimeDelta,
    recent: Arc<Mutex<Recent>>,
}

impl Delivery {
    /// A delivery from this store.
    pub fn new(store: Store, clock: Clock) -> Self {
        let tenth = TimeDelta::from_std(store.expires() / 10).unwrap_or(SHARED_FOR);
        Self { store, clock, shared_for: tenth.min(SHARED_FOR), recent: Arc::default() }
    }

    /// A URL for the object, at most a minute old.
    pub async fn url(&self, key: &ObjectKey) -> Result<Arc<str>, Error> {
        let now = self.clock.now();
        if let Some((made, url)) = self.recent().get(key)
            && now - *made < self.shared_for
        {
            return Ok(url.clone());
        }
        let url: Arc<str> = self.store.presign(key, now).await?.into();
        let mut recent = self.recent();
        if recent.len() >= REMEMBERED {
            recent.retain(|_, (made, _)| now - *made < self.shared_for / 2);
        }
        recent.insert(key.clone(), (now, url.clone()));
        Ok(url)
    }

    fn recent(&self) -> std::sync::MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
