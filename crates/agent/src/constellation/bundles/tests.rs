//! A few nodes with folders of bundles, on real connections.

use model::{FileEntry, NodeRole, StarId};

use super::super::feed::Keepers;
use super::super::testing::{House, Town, showing, star};
use super::*;

const CONTROLLER: NodeRole = NodeRole::Controller;

/// A node with a folder of bundles.
struct Keeper {
    _house: House,
    carrier: Carrier,
    bundles: Arc<Bundles>,
    _folder: tempfile::TempDir,
}

/// Nodes that all know each other, 1 and up; `state` changes what they know.
async fn keepers(roles: &[NodeRole], state: impl Fn(&mut State)) -> Vec<Keeper> {
    let mut town = Town::new();
    let mut houses = Vec::new();
    for (at, role) in roles.iter().enumerate() {
        houses.push(town.house(at as u64 + 1, *role).await);
    }
    let mut known = town.state();
    state(&mut known);
    let keeper = |house: House| {
        let folder = tempfile::tempdir().unwrap();
        let bundles = Arc::new(Bundles::new(folder.path()).unwrap());
        let looker = showing(house.node, known.clone());
        let carrier = carrier(town.roads(&house), folder.path(), &bundles, looker);
        let serving = carrier.clone();
        house.serve(move |peer, service, body, stream| match service {
            FETCH => serving.serve_fetch(peer, &body, stream),
            HOLD => serving.serve_hold(peer, &body, stream),
            _ => Err(Fault::new(ErrorCode::NotFound, "no such service")),
        });
        Keeper { _house: house, carrier, bundles, _folder: folder }
    };
    houses.into_iter().map(keeper).collect()
}

fn carrier(roads: Roads, folder: &std::path::Path, bundles: &Arc<Bundles>, looker: Looker) -> Carrier {
    let roots = Arc::new(Roots::new(folder).unwrap());
    Carrier::new(roads, Feed::new(), Arc::clone(bundles), roots, looker)
}

fn hash(bytes: &[u8]) -> ContentHash {
    ContentHash(*blake3::hash(bytes).as_bytes())
}

/// A bundle of `files` files, a large one among them.
fn contents(files: usize) -> (BundleManifest, Vec<Vec<u8>>) {
    let content = |at: usize| vec![at as u8; if at == 1 { 3_000_000 } else { 10 + at }];
    let contents: Vec<Vec<u8>> = (0..files).map(content).collect();
    let entry = |(at, bytes): (usize, &Vec<u8>)| {
        let entry = FileEntry { content: hash(bytes), size: bytes.len() as u64, executable: at % 2 == 0 };
        (format!("dir/file-{at}"), entry)
    };
    (BundleManifest { files: contents.iter().enumerate().map(entry).collect() }, contents)
}

fn store(bundles: &Bundles, files: usize) -> BundleId {
    let (manifest, contents) = contents(files);
    contents.iter().for_each(|bytes| bundles.put_blob(&hash(bytes), bytes).unwrap());
    bundles.commit(&manifest).unwrap()
}

async fn soon<F: Future>(future: F) -> F::Output {
    timeout(Duration::from_secs(60), future).await.expect("it happens in time")
}

#[tokio::test]
async fn a_bundle_is_fetched_from_who_has_it_and_only_what_is_missing() {
    let nodes = keepers(&[CONTROLLER; 3], |_| {}).await;
    let bundle = store(&nodes[2].bundles, 200);
    let (manifest, contents) = contents(200);
    // Some of it is here already.
    for bytes in &contents[..100] {
        nodes[0].bundles.put_blob(&hash(bytes), bytes).unwrap();
    }
    soon(nodes[0].carrier.ensure(bundle, None)).await.unwrap();
    assert_eq!(nodes[0].bundles.manifest(&bundle).unwrap(), Some(manifest));
}

#[tokio::test]
async fn what_nobody_has_is_told_so() {
    let nodes = keepers(&[CONTROLLER; 2], |_| {}).await;
    let problem = soon(nodes[0].carrier.ensure(BundleId(hash(b"x")), None)).await.unwrap_err();
    assert_eq!(problem.code, Code::BundleMissing);
    assert!(problem.message.contains("is not on this node"), "{problem}");
}

#[tokio::test]
async fn many_that_want_the_same_fetch_it_once_and_all_have_it() {
    let nodes = keepers(&[CONTROLLER; 2], |_| {}).await;
    let bundle = store(&nodes[1].bundles, 20);
    let all = (0..10).map(|_| nodes[0].carrier.ensure(bundle, None));
    for ensured in soon(futures_util::future::join_all(all)).await {
        ensured.unwrap();
    }
    assert!(nodes[0].carrier.0.fetching.lock().unwrap().values().all(|turn| turn.strong_count() == 0));
}

#[tokio::test]
async fn a_fetch_that_is_cut_short_goes_on_elsewhere_and_false_contents_are_not_kept() {
    let mut town = Town::new();
    let (here, liar, honest) =
        (town.house(1, CONTROLLER).await, town.house(2, CONTROLLER).await, town.house(3, CONTROLLER).await);
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let bundles = folders.each_ref().map(|folder| Arc::new(Bundles::new(folder.path()).unwrap()));
    let bundle = store(&bundles[1], 30);
    let (manifest, all) = contents(30);
    // Gives ten contents, then one that is not what it is called.
    let lied = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let (counted, told) = (Arc::clone(&lied), manifest.clone());
    liar.serve(move |_, _, _, stream| {
        let (manifest, all, lied) = (told.clone(), all.clone(), Arc::clone(&counted));
        tokio::spawn(async move {
            stream.write(framed(&Ok::<_, Problem>(&manifest)).unwrap()).await.unwrap();
            let mut reader = Reader::bounded(stream, ASKED_MAX_BYTES);
            let wanted: Vec<ContentHash> = reader.next().await.unwrap().unwrap();
            for (at, hash_wanted) in wanted.iter().take(11).enumerate() {
                let mut content = all.iter().find(|bytes| hash(bytes) == *hash_wanted).unwrap().clone();
                if at == 10 {
                    content[0] ^= 1;
                    lied.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                }
                let length = (content.len() as u64).to_be_bytes();
                reader.stream().write(Bytes::copy_from_slice(&length)).await.unwrap();
                reader.stream().write(Bytes::from(content)).await.unwrap();
            }
            reader.stream().finish();
            while let Ok(Some(_)) = reader.stream().read().await {}
        });
        Ok(())
    });
    let giving = carrier(town.roads(&honest), folders[1].path(), &bundles[1], showing(honest.node, town.state()));
    let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let gave = Arc::clone(&asked);
    honest.serve(move |peer, _, body, stream| {
        gave.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        giving.serve_fetch(peer, &body, stream)
    });
    let carrier = carrier(town.roads(&here), folders[0].path(), &bundles[0], showing(here.node, town.state()));
    let problem = match carrier.fetch(liar.node, bundle).await {
        Err(Failed::There(problem)) => problem,
        _ => panic!("it was taken"),
    };
    assert!(matches!(problem.code, Code::InvalidValue | Code::Unavailable), "{problem}");
    assert_eq!(lied.load(std::sync::atomic::Ordering::SeqCst), 1);
    assert_eq!(bundles[0].missing(&manifest).len(), 20, "what was right is kept, and nothing else");
    soon(carrier.ensure(bundle, None)).await.unwrap();
    assert_eq!(bundles[0].manifest(&bundle).unwrap(), Some(manifest));
    assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 1);
}

#[tokio::test]
async fn another_manifest_than_the_one_asked_for_is_refused() {
    let mut town = Town::new();
    let (here, liar) = (town.house(1, CONTROLLER).await, town.house(2, CONTROLLER).await);
    let folder = tempfile::tempdir().unwrap();
    let bundles = Arc::new(Bundles::new(folder.path()).unwrap());
    liar.serve(move |_, _, _, stream| {
        tokio::spawn(async move {
            let (manifest, _) = contents(2);
            stream.write(framed(&Ok::<_, Problem>(&manifest)).unwrap()).await.unwrap();
            while let Ok(Some(_)) = stream.read().await {}
        });
        Ok(())
    });
    let carrier = carrier(town.roads(&here), folder.path(), &bundles, showing(here.node, town.state()));
    let (other, _) = contents(3);
    match carrier.fetch(liar.node, id_of(&other)).await {
        Err(Failed::There(problem)) => assert_eq!(problem.code, Code::InvalidValue, "{problem}"),
        _ => panic!("it was taken"),
    }
}

#[tokio::test]
async fn a_worker_is_given_what_its_own_stars_are_made_from_and_nothing_else() {
    let (wanted, _) = contents(4);
    let (wanted, worker) = (id_of(&wanted), NodeId(2));
    for (own, expected) in [(true, true), (false, false)] {
        let nodes = keepers(&[CONTROLLER, NodeRole::Worker], |state| {
            let node = if own { worker } else { NodeId(1) };
            state.stars.insert(star(StarId(7), node, wanted));
        })
        .await;
        assert_eq!(store(&nodes[0].bundles, 4), wanted);
        let ensured = soon(nodes[1].carrier.ensure(wanted, None)).await;
        assert_eq!(ensured.is_ok(), expected, "{ensured:?}");
    }
}

#[tokio::test]
async fn an_app_is_put_when_most_voters_hold_its_files() {
    let nodes = keepers(&[CONTROLLER; 4], |_| {}).await;
    let bundle = store(&nodes[0].bundles, 5);
    let voters = |ids: &[u64]| ids.iter().map(|id| NodeId(*id)).collect::<Vec<_>>();
    let spread = async |ids: &[u64]| {
        let keepers = Keepers { voters: voters(ids), at_first_hand: true, ..Keepers::default() };
        nodes[0].carrier.0.feed.set_keepers(keepers);
        soon(nodes[0].carrier.spread(&BTreeSet::from([bundle]))).await
    };
    // One of three cannot be reached; it is not needed.
    spread(&[1, 2, 9]).await.unwrap();
    assert!(nodes[1].bundles.path(&bundle).is_some());
    // Two of three cannot.
    let problem = spread(&[1, 8, 9]).await.unwrap_err();
    assert_eq!(problem.code, Code::Unavailable);
    assert!(problem.message.starts_with("the app's files are with 1 of 3 voters"), "{problem}");
    // Who is no voter does not count.
    assert!(spread(&[2, 8, 9]).await.unwrap_err().message.contains("with 1 of 3"));
    spread(&[2, 3, 9]).await.unwrap();
    assert!(nodes[2].bundles.path(&bundle).is_some() && nodes[3].bundles.path(&bundle).is_none());
}
