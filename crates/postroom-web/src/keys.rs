//! Keys that requests only name: fetched once, kept for a while, within bounds.
//!
//! What is asked and how the answer is read is decided by [`postroom_domain::verify`]; who asks is given from outside,
//! because everything that leaves the process goes through the one client of the binary. Here is what lies between: one
//! question at a time for each key, a few in all, answers kept for an hour, the last good one used while the provider's
//! server is down, and a key that is not there not asked for again for a minute.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use postroom_domain::Timestamp;
use postroom_domain::verify::{KeyRequest, Outcome, Request, Verifier};
use tokio::sync::Semaphore;

/// How long an answer is believed without asking again.
const FRESH: Duration = Duration::from_secs(3600);
/// How long the last good answer serves while no newer one can be had.
const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long a key that is not there is not asked for again.
const ABSENT: Duration = Duration::from_secs(60);
/// How long a server that gave no answer is left alone.
const DOWN: Duration = Duration::from_secs(5);
/// So many keys are known at most.
const KEYS_MAX: usize = 512;
/// So many questions are on their way at most. More wait, and their senders with them.
const FETCHES_MAX: usize = 4;
/// How long a request waits for its key in all.
const WAIT_MAX: Duration = Duration::from_secs(8);

/// Who asks other servers, through the one guarded client.
#[async_trait]
pub trait KeyFetcher: Send + Sync {
    /// The body of the answer to this question, if its status is 200. No redirect is followed; time and size are bounded.
    async fn fetch(&self, request: &KeyRequest) -> Result<Bytes, NoKey>;

    /// Visits a URL once, by `GET`; any 2xx is success.
    async fn visit(&self, url: &url::Url) -> Result<(), NoKey>;
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoKey {
    /// The server answers that there is none.
    #[error("the server answers {0}")]
    Absent(u16),
    /// The server can not be asked now.
    #[error("{0}")]
    Unavailable(String),
}

/// What is known of one key.
#[derive(Clone, Default)]
struct Known {
    good: Option<(Bytes, Timestamp)>,
    /// Why the last question had no answer, and when that was.
    bad: Option<(NoKey, Timestamp)>,
    used: Option<Timestamp>,
}

/// One key: who holds the lock asks, and the others wait for that answer.
type Slot = Arc<tokio::sync::Mutex<Known>>;

/// See the [module](self).
pub(crate) struct Keys {
    fetcher: Arc<dyn KeyFetcher>,
    slots: Mutex<HashMap<String, Slot>>,
    fetches: Semaphore,
}

impl Keys {
    pub fn new(fetcher: Arc<dyn KeyFetcher>) -> Self {
        Self { fetcher, slots: Mutex::default(), fetches: Semaphore::new(FETCHES_MAX) }
    }

    /// The answer to a question, kept or fresh.
    pub async fn get(&self, request: &KeyRequest, now: Timestamp) -> Result<Bytes, NoKey> {
        let slot = self.slot(&request.name);
        let answer = async {
            let mut known = slot.lock().await;
            known.used = Some(now);
            if let Some(answer) = known.answer(now) {
                return answer;
            }
            let fetched = self.ask(request).await;
            known.learn(fetched, now)
        };
        let late = || Err(NoKey::Unavailable("its key did not come in time".to_owned()));
        tokio::time::timeout(WAIT_MAX, answer).await.unwrap_or_else(|_| late())
    }

    /// What checking a request that arrived at a moment comes to, and the key that it names if it names one.
    pub async fn verify(
        &self,
        verifier: &Verifier,
        request: &Request<'_>,
        at: Timestamp,
        now: Timestamp,
    ) -> Result<(Outcome, Option<Bytes>), NoKey> {
        match verifier.verify(request, at) {
            Outcome::NeedsKey(needed) => {
                let key = self.get(&needed, now).await?;
                Ok((verifier.verify_with_key(request, &key, at), Some(key)))
            }
            outcome => Ok((outcome, None)),
        }
    }

    /// Visits a URL once.
    pub async fn visit(&self, url: &url::Url) -> Result<(), NoKey> {
        let late = || Err(NoKey::Unavailable("the visit took too long".to_owned()));
        let visit = async {
            let _permit = self.fetches.acquire().await;
            self.fetcher.visit(url).await
        };
        tokio::time::timeout(WAIT_MAX, visit).await.unwrap_or_else(|_| late())
    }

    async fn ask(&self, request: &KeyRequest) -> Result<Bytes, NoKey> {
        let _permit = self.fetches.acquire().await;
        let fetched = self.fetcher.fetch(request).await;
        if let Err(why) = &fetched {
            tracing::warn!(host = request.url.host_str(), error = %why, "a key of a provider could not be fetched");
        }
        fetched
    }

    fn slot(&self, name: &str) -> Slot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(name) {
            return slot.clone();
        }
        if slots.len() >= KEYS_MAX {
            make_room(&mut slots);
        }
        slots.entry(name.to_owned()).or_default().clone()
    }
}

/// Forgets one key: one that nobody asks for now, rather one that was never there, rather the one unused for longest.
fn make_room(slots: &mut HashMap<String, Slot>) {
    let idle = slots.iter().filter_map(|(name, slot)| {
        let known = slot.try_lock().ok()?;
        Some(((known.good.is_some(), known.used.map(Timestamp::as_millis)), name.clone()))
    });
    if let Some((_, name)) = idle.min() {
        slots.remove(&name);
    }
}

impl Known {
    /// What needs no question.
    fn answer(&self, now: Timestamp) -> Option<Result<Bytes, NoKey>> {
        if let Some((bytes, _)) = self.good.as_ref().filter(|(_, at)| now.since(*at) < FRESH) {
            return Some(Ok(bytes.clone()));
        }
        let (why, at) = self.bad.as_ref()?;
        let pause = if matches!(why, NoKey::Absent(_)) { ABSENT } else { DOWN };
        (now.since(*at) < pause).then(|| self.last_good(now).ok_or_else(|| why.clone()))
    }

    fn learn(&mut self, fetched: Result<Bytes, NoKey>, now: Timestamp) -> Result<Bytes, NoKey> {
        match fetched {
            Ok(bytes) => {
                self.good = Some((bytes.clone(), now));
                self.bad = None;
                Ok(bytes)
            }
            Err(why) => {
                if matches!(why, NoKey::Absent(_)) {
                    // The provider took it away.
                    self.good = None;
                }
                self.bad = Some((why.clone(), now));
                self.last_good(now).ok_or(why)
            }
        }
    }

    fn last_good(&self, now: Timestamp) -> Option<Bytes> {
        self.good.as_ref().filter(|(_, at)| now.since(*at) < KEPT).map(|(bytes, _)| bytes.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Gives one answer after the other, and counts.
    struct Scripted {
        answers: Mutex<Vec<Result<Bytes, NoKey>>>,
        asked: AtomicUsize,
    }

    #[async_trait]
    impl KeyFetcher for Scripted {
        async fn fetch(&self, _: &KeyRequest) -> Result<Bytes, NoKey> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            let mut answers = self.answers.lock().unwrap();
            if answers.is_empty() { Ok(Bytes::from_static(b"good")) } else { answers.remove(0) }
        }

        async fn visit(&self, _: &url::Url) -> Result<(), NoKey> {
            Ok(())
        }
    }

    fn scripted(answers: &[Result<Bytes, NoKey>]) -> (Keys, Arc<Scripted>) {
        let fetcher = Arc::new(Scripted { answers: Mutex::new(answers.to_vec()), asked: AtomicUsize::new(0) });
        (Keys::new(fetcher.clone()), fetcher)
    }

    fn request(name: &str) -> KeyRequest {
        KeyRequest { url: "https://keys.example/x".parse().unwrap(), json: None, name: name.to_owned() }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(1_767_225_600 + seconds)
    }

    fn down() -> Result<Bytes, NoKey> {
        Err(NoKey::Unavailable("down".to_owned()))
    }

    #[tokio::test]
    async fn a_key_is_asked_for_once_however_many_want_it() {
        let (keys, fetcher) = scripted(&[]);
        let one = request("one");
        let all = futures_util::future::join_all((0..20).map(|_| keys.get(&one, at(0)))).await;
        assert!(all.iter().all(|answer| answer.as_deref() == Ok(b"good".as_slice())));
        keys.get(&one, at(3599)).await.unwrap();
        assert_eq!(fetcher.asked.load(Ordering::SeqCst), 1);
        keys.get(&one, at(3600)).await.unwrap();
        keys.get(&request("two"), at(3600)).await.unwrap();
        assert_eq!(fetcher.asked.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn the_last_good_answer_serves_while_the_server_is_down() {
        let first = Ok(Bytes::from_static(b"first"));
        let (keys, fetcher) = scripted(&[first, down(), down(), down()]);
        let one = request("one");
        for seconds in [0, 3600, 3601, 3605] {
            assert_eq!(keys.get(&one, at(seconds)).await.as_deref(), Ok(b"first".as_slice()), "{seconds}");
        }
        assert_eq!(fetcher.asked.load(Ordering::SeqCst), 3, "a server that is down is left alone for a moment");
        assert_eq!(keys.get(&one, at(7 * 24 * 3600)).await, down(), "but not for ever");
        assert_eq!(keys.get(&one, at(7 * 24 * 3600 + 5)).await.as_deref(), Ok(b"good".as_slice()));
    }

    #[tokio::test]
    async fn a_key_that_is_not_there_is_not_asked_for_again_for_a_minute() {
        let (keys, fetcher) = scripted(&[Ok(Bytes::new()), Err(NoKey::Absent(404))]);
        let one = request("one");
        keys.get(&one, at(0)).await.unwrap();
        for seconds in [3600, 3659] {
            assert_eq!(keys.get(&one, at(seconds)).await, Err(NoKey::Absent(404)), "it was taken away");
        }
        assert_eq!(fetcher.asked.load(Ordering::SeqCst), 2);
        keys.get(&one, at(3660)).await.unwrap();
    }

    #[tokio::test]
    async fn names_that_nobody_has_do_not_push_out_keys_in_use() {
        let absent = vec![Err(NoKey::Absent(404)); 2 * KEYS_MAX];
        let (keys, fetcher) = scripted(&[vec![Ok(Bytes::from_static(b"kept"))], absent].concat());
        keys.get(&request("kept"), at(0)).await.unwrap();
        for number in 0..2 * KEYS_MAX {
            keys.get(&request(&number.to_string()), at(1)).await.unwrap_err();
        }
        assert_eq!(keys.slots.lock().unwrap().len(), KEYS_MAX);
        let asked = fetcher.asked.load(Ordering::SeqCst);
        assert_eq!(keys.get(&request("kept"), at(2)).await.as_deref(), Ok(b"kept".as_slice()));
        assert_eq!(fetcher.asked.load(Ordering::SeqCst), asked);
    }
}
