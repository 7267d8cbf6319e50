//! A store whose operations fail from a chosen one on, as if the writer or the store had been killed there.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// Fails operation number `at` and all later ones. If `after` is set, operation `at` takes effect before it fails: its answer is
/// lost.
#[derive(Debug)]
pub struct Faulty {
    inner: Arc<dyn ObjectStore>,
    count: AtomicUsize,
    at: usize,
    after: bool,
    /// How answers are damaged instead of failing, from operation `at` on.
    damage: Option<Damage>,
}

/// Damage to answers of a store.
#[derive(Debug, Clone, Copy)]
pub struct Damage {
    pub kind: DamageKind,
    /// Whether all later answers are damaged too.
    pub lasts: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DamageKind {
    /// A byte of an object is changed, or the last two objects of a list are missing.
    Content,
    /// An object is reported as missing, or the last two objects of a list are missing.
    Missing,
}

impl Faulty {
    pub fn new(inner: Arc<dyn ObjectStore>, at: usize, after: bool) -> Arc<Self> {
        Arc::new(Self { inner, count: AtomicUsize::new(0), at, after, damage: None })
    }

    /// A store that damages answers, from operation number `at` on.
    pub fn damaging(inner: Arc<dyn ObjectStore>, at: usize, damage: Damage) -> Arc<Self> {
        Arc::new(Self { inner, count: AtomicUsize::new(0), at, after: true, damage: Some(damage) })
    }

    /// Whether the fault has happened.
    pub fn has_failed(&self) -> bool {
        self.count.load(Ordering::SeqCst) > self.at
    }

    /// Returns whether the operation takes effect, and whether it fails.
    fn next(&self) -> (bool, bool) {
        let number = self.count.fetch_add(1, Ordering::SeqCst);
        if self.damage.is_some() {
            return (true, false);
        }
        (number < self.at || number == self.at && self.after, number >= self.at)
    }

    /// Damage of the next answer.
    fn damage(&self) -> Option<DamageKind> {
        let (number, damage) = (self.count.load(Ordering::SeqCst), self.damage?);
        (number == self.at || number > self.at && damage.lasts).then_some(damage.kind)
    }

    async fn run<T>(&self, operation: impl Future<Output = Result<T>>) -> Result<T> {
        let (takes_effect, fails) = self.next();
        let result = if takes_effect { Some(operation.await) } else { None };
        match result {
            Some(result) if !fails => result,
            _ => Err(fault()),
        }
    }
}

fn fault() -> Error {
    Error::Generic { store: "faulty", source: "injected fault".into() }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("faulty store")
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.run(self.inner.put_opts(location, payload, options)).await
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(fault())
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let damage = self.damage();
        let mut found = self.run(self.inner.get_opts(location, options)).await?;
        if damage == Some(DamageKind::Missing) {
            return Err(Error::NotFound { path: location.to_string(), source: "damaged answer".into() });
        }
        if damage.is_some() {
            let (meta, range) = (found.meta.clone(), found.range.clone());
            let (attributes, extensions) = (found.attributes.clone(), found.extensions.clone());
            let mut bytes = found.bytes().await?.to_vec();
            let middle = bytes.len() / 2;
            bytes.get_mut(middle).into_iter().for_each(|byte| *byte ^= 1);
            let payload = futures::stream::once(async { Ok(Bytes::from(bytes)) }).boxed();
            found = GetResult { payload: GetResultPayload::Stream(payload), meta, range, attributes, extensions };
        }
        Ok(found)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.run(self.inner.get_ranges(location, ranges)).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (takes_effect, fails) = self.next();
        if !takes_effect || fails {
            return futures::stream::once(async { Err(fault()) }).boxed();
        }
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let damage = self.damage();
        let (takes_effect, fails) = self.next();
        if damage.is_some() {
            let listed = self.inner.list(prefix).collect::<Vec<_>>();
            let part = listed.map(|mut listed| {
                listed.sort_by_key(|listed| listed.as_ref().map(|meta| meta.location.clone()).ok());
                // A step and its hashes have adjacent names.
                listed.truncate(listed.len().saturating_sub(2));
                futures::stream::iter(listed)
            });
            return futures::stream::once(part).flatten().boxed();
        }
        if !takes_effect || fails {
            return futures::stream::once(async { Err(fault()) }).boxed();
        }
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.run(self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.run(self.inner.copy_opts(from, to, options)).await
    }
}

/// A store that does not create atomically: it checks first, and then overwrites.
#[derive(Debug)]
pub struct CheckThenPut(pub Arc<dyn ObjectStore>);

impl fmt::Display for CheckThenPut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("store without atomic creation")
    }
}

#[async_trait]
impl ObjectStore for CheckThenPut {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        use object_store::ObjectStoreExt as _;
        if self.0.head(location).await.is_ok() {
            return Err(Error::AlreadyExists { path: location.to_string(), source: "exists".into() });
        }
        tokio::task::yield_now().await;
        self.0.put_opts(location, payload, PutOptions { mode: object_store::PutMode::Overwrite, ..options }).await
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(fault())
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.0.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.0.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.0.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.copy_opts(from, to, options).await
    }
}
