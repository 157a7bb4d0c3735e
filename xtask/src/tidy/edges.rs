//! Who may depend on whom: `postback` on every room, every room on `queue`, no room on another; those that
//! show pages share `pages`.

use cargo_metadata::{DependencyKind, Metadata};

/// One dependency between two packages of the workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Edge {
    from: String,
    to: String,
    in_tests_only: bool,
}

const ROOMS: [&str; 7] = ["builder", "dashboard", "delivery", "gateway", "inbox", "store", "worker"];

/// The edges between the packages of the workspace, by the names of their folders.
pub(super) fn of(metadata: &Metadata) -> Vec<Edge> {
    let name = |package: &str| package.strip_prefix("postback-").unwrap_or(package).to_owned();
    let members: Vec<_> = metadata.workspace_packages();
    let is_member = |wanted: &str| members.iter().any(|package| package.name.as_str() == wanted);
    members
        .iter()
        .flat_map(|package| {
            package.dependencies.iter().filter(|dependency| is_member(&dependency.name)).map(|dependency| {
                Edge {
                    from: name(&package.name),
                    to: name(&dependency.name),
                    in_tests_only: dependency.kind == DependencyKind::Development,
                }
            })
        })
        .collect()
}

fn is_allowed(edge: &Edge) -> bool {
    let (from, to) = (edge.from.as_str(), edge.to.as_str());
    match from {
        "queue" => edge.in_tests_only && to == "testkit",
        "postback" => to != "bench" && to != "xtask" && (to != "testkit" || edge.in_tests_only),
        "testkit" => to == "queue" || to == "store",
        "pages" => false,
        "inbox" | "dashboard" if to == "pages" => true,
        "bench" | "xtask" => true,
        _ if ROOMS.contains(&from) => {
            to == "queue" || (edge.in_tests_only && (to == "testkit" || to == "store"))
        }
        _ => false,
    }
}

/// The edges that point the wrong way.
pub(super) fn check(edges: &[Edge]) -> Vec<String> {
    edges
        .iter()
        .filter(|edge| !is_allowed(edge))
        .map(|Edge { from, to, .. }| {
            format!("`{from}` depends on `{to}`: rooms meet only through the ports of `queue`")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(from: &str, to: &str, in_tests_only: bool) -> Edge {
        Edge { from: from.into(), to: to.into(), in_tests_only }
    }

    #[test]
    fn the_workspace_points_one_way() {
        let metadata = cargo_metadata::MetadataCommand::new().exec().unwrap();
        let edges = of(&metadata);
        assert!(edges.contains(&edge("postback", "gateway", false)), "{edges:?}");
        assert_eq!(check(&edges), Vec::<String>::new());
    }

    #[test]
    fn a_room_that_imports_a_sibling_is_found() {
        for wrong in [
            edge("gateway", "worker", false),
            edge("delivery", "store", false),
            edge("queue", "store", false),
            edge("postback", "testkit", false),
        ] {
            assert_eq!(check(std::slice::from_ref(&wrong)).len(), 1, "{wrong:?}");
        }
        assert_eq!(check(&[edge("gateway", "testkit", true)]), Vec::<String>::new());
    }
}
