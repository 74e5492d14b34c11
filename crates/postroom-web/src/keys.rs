//! What only providers' servers can answer: keys are fetched once and kept for a while, within bounds; PayPal is asked
//! about each request of a source that chose so, with an access token that is kept like a key.
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
/// So many questions about single requests are on their way at most, and so many of one account: they are no more than
/// waiting, so that who floods one source with forgeries holds up that source.
const POSTBACKS_MAX: usize = 16;
const ACCOUNT_POSTBACKS_MAX: usize = 4;
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

/// One key.
struct Slot {
    /// Who holds the lock asks, and the others wait for that answer.
    known: tokio::sync::Mutex<Known>,
    /// Where the key is an access token: the questions that use it.
    turns: Semaphore,
}

impl Default for Slot {
    fn default() -> Self {
        Self { known: tokio::sync::Mutex::default(), turns: Semaphore::new(ACCOUNT_POSTBACKS_MAX) }
    }
}

/// See the [module](self).
pub(crate) struct Keys {
    fetcher: Arc<dyn KeyFetcher>,
    slots: Mutex<HashMap<String, Arc<Slot>>>,
    fetches: Semaphore,
    postbacks: Semaphore,
}

impl Keys {
    pub fn new(fetcher: Arc<dyn KeyFetcher>) -> Self {
        let (fetches, postbacks) = (Semaphore::new(FETCHES_MAX), Semaphore::new(POSTBACKS_MAX));
        Self { fetcher, slots: Mutex::default(), fetches, postbacks }
    }

    /// The answer to a question, kept or fresh.
    pub async fn get(&self, request: &KeyRequest, now: Timestamp) -> Result<Bytes, NoKey> {
        let answer = async {
            match &request.token {
                None => self.kept(&self.slot(&request.name), request, now).await,
                Some(token) => self.with_token(request, token, now).await,
            }
        };
        let late = || Err(NoKey::Unavailable("the answer did not come in time".to_owned()));
        tokio::time::timeout(WAIT_MAX, answer).await.unwrap_or_else(|_| late())
    }

    async fn kept(&self, slot: &Slot, request: &KeyRequest, now: Timestamp) -> Result<Bytes, NoKey> {
        let mut known = slot.known.lock().await;
        known.used = Some(now);
        if let Some(answer) = known.answer(now) {
            return answer;
        }
        let fetched = self.ask(request, &self.fetches).await;
        known.learn(fetched, now)
    }

    /// The answer to a question that needs an access token. A token that is not taken any more is fetched anew, once.
    async fn with_token(&self, request: &KeyRequest, token: &KeyRequest, now: Timestamp) -> Result<Bytes, NoKey> {
        let slot = self.slot(&token.name);
        let _turn = slot.turns.acquire().await;
        let mut is_first = true;
        loop {
            let granted = self.kept(&slot, token, now).await?;
            let no_token = || NoKey::Unavailable("the server's answer holds no access token".to_owned());
            let question = request.with_token(&granted).ok_or_else(no_token)?;
            match self.ask(&question, &self.postbacks).await {
                Err(NoKey::Absent(401)) if is_first => {
                    let mut known = slot.known.lock().await;
                    known.good = known.good.take().filter(|(kept, _)| *kept != granted);
                    is_first = false;
                }
                answer => return answer,
            }
        }
    }

    /// What checking a request that arrived at a moment comes to, and the key that it names if it names one.
    pub async fn verify(
        &self,
        verifier: &Verifier,
        request: &Request<'_>,
        at: Timestamp,
        now: impl Fn() -> Timestamp,
    ) -> Result<(Outcome, Option<Bytes>), NoKey> {
        match verifier.verify(request, at) {
            Outcome::NeedsKey(needed) => {
                let key = self.get(&needed, now()).await?;
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

    async fn ask(&self, request: &KeyRequest, permits: &Semaphore) -> Result<Bytes, NoKey> {
        let _permit = permits.acquire().await;
        let fetched = self.fetcher.fetch(request).await;
        if let Err(why) = &fetched {
            tracing::warn!(host = request.url.host_str(), error = %why, "a provider's server gave no answer to build on");
        }
        fetched
    }

    fn slot(&self, name: &str) -> Arc<Slot> {
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
fn make_room(slots: &mut HashMap<String, Arc<Slot>>) {
    let idle = slots.iter().filter_map(|(name, slot)| {
        let known = slot.known.try_lock().ok()?;
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

    use postroom_domain::Secret;
    use postroom_domain::verify::Post;

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
        KeyRequest { url: "https://keys.example/x".parse().unwrap(), post: None, name: name.to_owned(), token: None }
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

    fn about_one_request() -> KeyRequest {
        let post = Post { content_type: "application/json", authorization: None, body: Secret::from("{}") };
        KeyRequest { token: Some(Box::new(request("token"))), post: Some(post), ..request("question") }
    }

    fn token(text: &str) -> Result<Bytes, NoKey> {
        Ok(format!(r#"{{"access_token":"{text}","expires_in":32400}}"#).into())
    }

    #[tokio::test]
    async fn a_token_is_kept_and_what_it_is_asked_for_is_not() {
        let yes = || Ok(Bytes::from_static(b"yes"));
        let (keys, fetcher) = scripted(&[token("one"), yes(), yes(), down(), yes(), token("two"), yes()]);
        let question = about_one_request();
        for (seconds, expected) in [(0, yes()), (1, yes()), (2, down()), (3, yes()), (3600, yes())] {
            assert_eq!(keys.get(&question, at(seconds)).await, expected, "{seconds}");
        }
        assert_eq!(fetcher.asked.load(Ordering::SeqCst), 7);
        let (keys, fetcher) = scripted(&[down(), token("late")]);
        assert_eq!(keys.get(&question, at(0)).await, down());
        assert_eq!(keys.get(&question, at(4)).await, down(), "a server that is down is left alone for a moment");
        assert_eq!(keys.get(&question, at(5)).await.as_deref(), Ok(b"good".as_slice()));
        assert_eq!(fetcher.asked.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn a_token_that_is_taken_no_more_is_fetched_anew_once() {
        let (yes, refused) = (Ok(Bytes::from_static(b"yes")), Err(NoKey::Absent(401)));
        let (keys, fetcher) =
            scripted(&[token("old"), refused.clone(), token("new"), yes.clone(), refused.clone(), token("x"), refused]);
        let question = about_one_request();
        assert_eq!(keys.get(&question, at(0)).await, yes);
        assert_eq!(keys.get(&question, at(1)).await, Err(NoKey::Absent(401)));
        assert_eq!(fetcher.asked.load(Ordering::SeqCst), 7);
        let (keys, fetcher) = scripted(&[Ok(Bytes::from_static(b"<html>"))]);
        assert!(matches!(keys.get(&question, at(0)).await, Err(NoKey::Unavailable(_))));
        assert_eq!(fetcher.asked.load(Ordering::SeqCst), 1, "without a token nothing is asked");
    }

    #[tokio::test]
    async fn one_account_holds_up_nobody_else() {
        let (keys, _) = scripted(&[]);
        let slot = keys.slot("token");
        let all = slot.turns.acquire_many(u32::try_from(ACCOUNT_POSTBACKS_MAX).unwrap()).await.unwrap();
        let question = about_one_request();
        let waiting = keys.get(&question, at(0));
        tokio::pin!(waiting);
        assert!(futures_util::poll!(&mut waiting).is_pending(), "it waits for its turn");
        keys.get(&request("key"), at(0)).await.unwrap();
        drop(all);
        assert!(waiting.await.is_err(), "its token is no token, but it was its turn");
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
