//! The one decision how a printer gets an image: a presigned URL, a CDN's, or a short link of our own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use chrono::TimeDelta;

use super::{Cdn, Error, ObjectKey, Store};
use crate::clock::{Clock, Time};

/// How long one URL serves many printers at most, because signing costs more than sending. A tenth of the URL's life
/// if that is shorter, so that every printer gets one with at least nine tenths of it left.
const SHARED_FOR: TimeDelta = TimeDelta::seconds(60);
/// Distinct releases that are offered within a minute; beyond it the oldest half is forgotten.
const REMEMBERED: usize = 64;

/// What `DELIVERY` says.
#[derive(Debug)]
pub enum Mode {
    /// S3 presigned GET.
    Presigned,
    /// A CDN in front of the bucket.
    Cdn(Cdn),
    /// A link of our own, always.
    Link,
}

/// Where a printer finds an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// At a URL that may serve many printers.
    Url(Arc<str>),
    /// Behind a link of our own, because no other URL fits the printer.
    Link,
}

/// URLs, and when they were made.
type Recent = HashMap<ObjectKey, (Time, Arc<str>)>;

/// Makes URLs when they are needed; none is ever stored.
#[derive(Clone)]
pub struct Delivery {
    store: Store,
    mode: Arc<Mode>,
    clock: Clock,
    shared_for: TimeDelta,
    recent: Arc<Mutex<Recent>>,
}

impl Delivery {
    /// A delivery from this store.
    pub fn new(store: Store, mode: Mode, clock: Clock) -> Self {
        let tenth = TimeDelta::from_std(store.expires() / 10).unwrap_or(SHARED_FOR);
        Self { store, mode: Arc::new(mode), clock, shared_for: tenth.min(SHARED_FOR), recent: Arc::default() }
    }

    /// Where a printer that takes URLs of at most `fits` characters finds the object.
    pub async fn address(&self, key: &ObjectKey, fits: usize) -> Result<Address, Error> {
        if let Mode::Link = *self.mode {
            return Ok(Address::Link);
        }
        let url = self.url(key).await?;
        Ok(if url.len() <= fits { Address::Url(url) } else { Address::Link })
    }

    /// When a link that is made now expires.
    pub fn expires_at(&self, now: Time) -> Time {
        now + TimeDelta::from_std(self.store.expires()).unwrap_or(SHARED_FOR)
    }

    /// A URL for the object, at most a minute old.
    async fn url(&self, key: &ObjectKey) -> Result<Arc<str>, Error> {
        let now = self.clock.now();
        if let Some((made, url)) = self.recent().get(key)
            && now - *made < self.shared_for
        {
            return Ok(url.clone());
        }
        let url: Arc<str> = match &*self.mode {
            Mode::Cdn(cdn) => cdn.url(key, self.expires_at(now))?.into(),
            Mode::Presigned | Mode::Link => self.store.presign(key, now).await?.into(),
        };
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
