//! The routes of the rooms that show pages, read from their source: a route that is added is tested from then on.

use std::path::Path;

const METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];

/// One route of a router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    /// As the router has it, such as `/dashboard/runs/{run}`.
    pub(super) path: String,
    /// The methods that it answers, such as `GET`.
    pub(super) methods: Vec<String>,
}

impl Route {
    /// Whether it answers this method.
    pub(super) fn takes(&self, method: &str) -> bool {
        self.methods.iter().any(|one| one == method)
    }

    /// The path with each `{name}` replaced by what `value` has for it.
    pub(super) fn at(&self, value: impl Fn(&str) -> Option<String>) -> Option<String> {
        let parts = self.path.split('/').map(|part| {
            let name = part.strip_prefix('{').and_then(|part| part.strip_suffix('}'));
            name.map_or_else(|| Some(part.to_owned()), &value)
        });
        parts.collect::<Option<Vec<_>>>().map(|parts| parts.join("/"))
    }
}

/// Every route of the dashboard, and those of inbox pages. What senders post to is no page.
pub(super) fn of_pages() -> Vec<Route> {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut routes = Vec::new();
    for room in ["dashboard", "inbox"] {
        let mut files: Vec<_> = std::fs::read_dir(crates.join(room).join("src"))
            .unwrap()
            .map(|file| file.unwrap().path())
            .collect();
        files.sort();
        for file in files.iter().filter(|file| file.extension().is_some_and(|kind| kind == "rs")) {
            routes.extend(read(&std::fs::read_to_string(file).unwrap()));
        }
    }
    routes.retain(|route| !route.path.starts_with("/inbox/"));
    routes
}

fn read(source: &str) -> Vec<Route> {
    let of_one = |text: &str| {
        let (path, rest) = text.trim_start().strip_prefix('"')?.split_once('"')?;
        // What follows the last route of a chain is no method of it.
        let ends = [".layer(", ".merge(", ".with_state(", ";", "}"];
        let end = ends.iter().filter_map(|end| rest.find(end)).min().unwrap_or(rest.len());
        let methods = &rest[..end];
        let written = |method: &&str| {
            methods.contains(&format!("{}(", method.to_lowercase())) || methods.contains("any(")
        };
        let methods = METHODS.iter().filter(|method| written(method)).map(ToString::to_string).collect();
        Some(Route { path: path.to_owned(), methods })
    };
    source.split(".route(").skip(1).filter_map(of_one).collect()
}

#[test]
fn routes_are_read_as_they_are_written() {
    let source = "Router::new()\n.route(\"/a/{x}\", get(a::show).post(a::make))\n.route(\n    \"/b\",\n    post(b),\n)\n.layer(x)\n} fn x() { y.get(1) }";
    let route = |path: &str, methods: &[&str]| Route {
        path: path.into(),
        methods: methods.iter().map(ToString::to_string).collect(),
    };
    assert_eq!(read(source), [route("/a/{x}", &["GET", "POST"]), route("/b", &["POST"])]);
    assert_eq!(route("/a/{x}/c", &[]).at(|name| Some(name.repeat(2))).unwrap(), "/a/xx/c");

    let all = of_pages();
    for known in ["/dashboard", "/dashboard/runs/{run}", "/inboxes/{id}", "/dashboard/runs/{run}/cancel"] {
        assert!(all.iter().any(|route| route.path == known), "{known}");
    }
    assert!(all.iter().filter(|route| route.takes("POST")).count() >= 10, "{all:?}");
}
