//! The Debian packages that the project needs, and why.

use super::Scope;

/// One package of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Package {
    /// Its name in Debian.
    pub(crate) name: &'static str,
    /// Who needs it first.
    pub(super) scope: Scope,
    /// What for.
    pub(crate) reason: &'static str,
    /// A program that makes the package unnecessary when it is on `PATH` from another source.
    pub(super) or_program: Option<&'static str>,
    /// A service that the package would start, now and at every boot; nobody asked for that.
    pub(super) service: Option<&'static str>,
}

const fn package(name: &'static str, scope: Scope, reason: &'static str) -> Package {
    Package {
        name,
        scope,
        reason,
        or_program: None,
        service: None,
    }
}

impl Package {
    const fn or(mut self, program: &'static str) -> Self {
        self.or_program = Some(program);
        self
    }

    const fn serving(mut self, service: &'static str) -> Self {
        self.service = Some(service);
        self
    }
}

/// Every package; the JDK stands apart because its name carries a version, see [`jdk`].
pub(super) const PACKAGES: &[Package] = &[
    package(
        "gcc",
        Scope::Build,
        "links Rust programs, compiles bpf-linker's C parts",
    )
    .or("cc"),
    package("g++", Scope::Build, "links bpf-linker and libFuzzer").or("c++"),
    package("libc6-dev", Scope::Build, "C library to link against"),
    package("runc", Scope::Demo, "runs the containers"),
    package("iproute2", Scope::Demo, "network namespaces of the pods"),
    package("nginx-light", Scope::Demo, "web server under observation").serving("nginx.service"),
    package("python3", Scope::Demo, "applications under observation"),
    package("python3-flask", Scope::Demo, "the demo's application"),
    package(
        "python3-requests",
        Scope::Demo,
        "HTTP client under observation",
    ),
    package(
        "gunicorn",
        Scope::Demo,
        "Python application server under observation",
    ),
    package("groff-base", Scope::Test, "reads the man pages").or("groff"),
    package("curl", Scope::Test, "HTTP client under observation"),
    package("wrk", Scope::Test, "keep-alive load"),
    package(
        "nghttp2-client",
        Scope::Test,
        "HTTP/2 load, and a client under observation",
    ),
    package(
        "nghttp2-server",
        Scope::Test,
        "HTTP/2 server under observation",
    ),
    package(
        "wget",
        Scope::Test,
        "HTTPS client with GnuTLS under observation",
    ),
    package(
        "git",
        Scope::Test,
        "brings libcurl with GnuTLS, whose own package has a name for each release",
    ),
    package("openssl", Scope::Test, "TLS server that renegotiates").or("openssl"),
    package("golang-go", Scope::Test, "Go net/http server and client").or("go"),
    package(
        "golang-google-grpc-dev",
        Scope::Test,
        "library of the Go gRPC server and client",
    ),
    package(
        "nodejs",
        Scope::Test,
        "Node.js http server and fetch client",
    )
    .or("node"),
    package("npm", Scope::Test, "fetches Helm").or("npm"),
    package("ruby", Scope::Test, "Ruby server under observation").or("ruby"),
    package("ruby-webrick", Scope::Test, "Ruby's HTTP server"),
    package("busybox-static", Scope::Test, "smallest container image"),
    package(
        "debootstrap",
        Scope::Test,
        "builds the machines in which container runtimes run",
    ),
    package(
        "bpftool",
        Scope::Test,
        "a second opinion on what is loaded in the kernel",
    ),
    package(
        "valgrind",
        Scope::Test,
        "instruction counts for the benchmarks",
    ),
    package("buildah", Scope::Test, "builds the images"),
    package(
        "ca-certificates",
        Scope::Test,
        "certificate authorities in the images",
    ),
    package("libcap2-bin", Scope::Test, "file capabilities in the image").or("setcap"),
    package("prometheus", Scope::Test, "scrapes the metrics page").serving("prometheus.service"),
    package(
        "python3-venv",
        Scope::Test,
        "keeps the pinned Python packages apart",
    ),
];

/// The compilers of the architecture that this machine does not have.
pub(super) const CROSS_COMPILERS: &[Package] = if cfg!(target_arch = "aarch64") {
    &[
        package("gcc-x86-64-linux-gnu", Scope::Test, CROSS),
        package("libc6-dev-amd64-cross", Scope::Test, CROSS_HEADERS),
    ]
} else {
    &[
        package("gcc-aarch64-linux-gnu", Scope::Test, CROSS),
        package("libc6-dev-arm64-cross", Scope::Test, CROSS_HEADERS),
    ]
};

const CROSS: &str = "links the images' programs for the other architecture";
const CROSS_HEADERS: &str = "headers for their C code";

/// The JDK of a Debian release.
pub(super) fn jdk(debian_major: u32) -> Package {
    let name = if debian_major >= 13 {
        "openjdk-21-jdk-headless"
    } else {
        "openjdk-17-jdk-headless"
    };
    package(name, Scope::Test, "Java's HTTP server, and its compiler").or("javac")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_jdk_follows_the_release() {
        assert_eq!(jdk(12).name, "openjdk-17-jdk-headless");
        assert_eq!(jdk(13).name, "openjdk-21-jdk-headless");
    }

    #[test]
    fn no_package_is_listed_twice() {
        let mut names: Vec<_> = PACKAGES.iter().map(|package| package.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), PACKAGES.len());
    }
}
