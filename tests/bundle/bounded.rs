//! Tests manifests and trust files that could keep the verifier busy for a long time: each is checked quickly or exceeds a limit.

use piperoll_evidence::bundle::{Manifest, NodePart, Trust, TrustError, manifest_note, verify_bundle};

use super::maker::{Case, Parts, exporter, seed, trust};

const FINDINGS_MAX: usize = 100;

fn named(count: usize) -> Vec<NodePart> {
    let part = |n| NodePart {
        erased: None,
        node_id: format!("n{n:07}"),
        status: String::new(),
        reason: None,
        verdict: String::new(),
        generation: None,
        size: None,
        rows: 0,
        borders: 0,
        earlier: Vec::new(),
        rejected: 0,
    };
    (0..count).map(part).collect()
}

fn bundle(change: impl Fn(&mut Manifest)) -> Vec<u8> {
    let mut parts = Case::new().parts();
    change(&mut parts.manifest);
    parts.seal()
}

#[test]
fn a_manifest_of_many_nodes_ends_or_is_refused() {
    // Each of the 20,000 nodes is looked up among as many other names: linear searches would need 400 million comparisons.
    let text: String = (0..20_000).map(|n| format!("[[node]]\nid = \"o{n}\"\nkey = []\n")).collect();
    let others = Trust::parse(&format!("format = \"piperoll trust v1\"\ncluster = \"golden\"\n{text}")).unwrap();
    for trust in [trust(), others] {
        let verdict = verify_bundle(&bundle(|manifest| manifest.nodes = named(20_000)), Some(&trust));
        assert!(!verdict.is_sound() && !verdict.complete);
        assert!(verdict.findings.len() <= FINDINGS_MAX, "{}", verdict.findings.len());
    }
    let verdict = verify_bundle(&bundle(|manifest| manifest.nodes = named(20_001)), Some(&trust()));
    assert!(
        format!("{:?}", verdict.findings).contains("20001 nodes, more than the limit of 20000"),
        "{:?}",
        verdict.findings
    );
    assert!(verdict.nodes.is_empty(), "nothing of it is looked at");
}

#[test]
fn a_manifest_with_a_signature_on_every_line_is_refused() {
    let parts = Case::new().parts();
    let note = manifest_note(&parts.manifest, &exporter()).unwrap();
    let line = note.lines().last().unwrap();
    let again = |times: usize| {
        let note = format!("{note}{}", format!("{line}\n").repeat(times));
        let Parts { members, .. } = Case::new().parts();
        let mut out = Vec::new();
        for (name, bytes) in std::iter::once(("manifest".to_owned(), note.into_bytes())).chain(members) {
            out.extend_from_slice(&piperoll_evidence::bundle::member_header(&name, bytes.len() as u64).unwrap());
            out.extend_from_slice(&bytes);
            out.extend_from_slice(piperoll_evidence::bundle::member_padding(bytes.len() as u64));
        }
        piperoll_evidence::bundle::write_end(&mut out);
        format!("{:?}", verify_bundle(&out, Some(&trust())).findings)
    };
    assert!(!again(7).contains("signatures, more than"), "eight are read");
    assert!(again(8).contains("9 signatures, more than the limit of 8"), "{}", again(8));
}

#[test]
fn a_trust_file_is_as_long_as_a_cluster() {
    let head = "format = \"piperoll trust v1\"\ncluster = \"golden\"\n";
    let node = |n: usize| format!("[[node]]\nid = \"n{n}\"\nkey = []\n");
    let text = |count: usize| format!("{head}{}", (0..count).map(node).collect::<String>());
    assert!(Trust::parse(&text(20_000)).is_ok());
    let refused = Trust::parse(&text(20_001)).unwrap_err();
    assert!(matches!(refused, TrustError::TooMany { count: 20_001, .. }), "{refused}");
    assert_eq!(Trust::parse(&format!("{head}{0}{0}", node(1))), Err(TrustError::Twice("n1".to_owned())));
    // Listing the same key under another id would make the verifier try it once more for every note.
    let keys = trust().to_text();
    let aggregator = &keys[keys.find("[[aggregator]]").unwrap()..];
    let renamed = aggregator.replacen("id = \"agg\"", "id = \"agg2\"", 1);
    assert_ne!(renamed, aggregator);
    assert_eq!(Trust::parse(&format!("{keys}\n{renamed}")), Err(TrustError::Twice("agg2".to_owned())));
    let other = |n: u8| {
        let key = |kind| seed(n).named(&format!("golden/aggregator/a{n}"), kind).unwrap().public().to_string();
        use piperoll_format::note::KeyKind::{Log, Witness};
        format!("[[aggregator]]\nid = \"a{n}\"\nwitness = \"{}\"\nexporter = \"{}\"\n", key(Witness), key(Log))
    };
    let many: String = (0..=255).map(other).chain([aggregator.to_owned()]).collect();
    let refused = Trust::parse(&format!("{head}{many}")).unwrap_err();
    assert!(matches!(refused, TrustError::TooMany { count: 257, most: 256, .. }), "{refused}");
    // Deeply nested brackets are a format error, and do not overflow the stack.
    for deep in ["[".repeat(200_000), format!("x = {}", "[".repeat(200_000)), format!("x = {}", "{a=".repeat(200_000))]
    {
        assert!(matches!(Trust::parse(&deep), Err(TrustError::Form(_))));
    }
}

#[test]
fn a_manifest_of_brackets_is_refused() {
    let mut parts = Case::new().parts();
    parts.manifest.asked.filter = "(".repeat(100_000);
    let verdict = verify_bundle(&parts.seal(), Some(&trust()));
    assert!(!verdict.is_sound());
    let text = format!("piperoll bundle v1\n{}\n\n\u{2014} x AAAAAAAA\n", "[".repeat(1_000_000));
    let mut out = Vec::new();
    out.extend_from_slice(&piperoll_evidence::bundle::member_header("manifest", text.len() as u64).unwrap());
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(piperoll_evidence::bundle::member_padding(text.len() as u64));
    piperoll_evidence::bundle::write_end(&mut out);
    assert!(!verify_bundle(&out, Some(&trust())).is_sound());
}
