//! The C library's name functions, defined here so that the linker takes these and not glibc's. Those would load
//! `libnss_*.so` as `/etc/nsswitch.conf` says, and with them another C library, into a program that is static.
//!
//! Host names go through a resolver in Rust that reads `/etc/hosts` and `/etc/resolv.conf`; whoever calls
//! `getaddrinfo`, the standard library included, gets its answers. Users and groups are answered with "not there": the
//! agent reads `/etc/passwd` and `/etc/group` itself, and nobody else asks.
#![expect(
    unsafe_code,
    reason = "symbols of the C library are defined, and its lists passed over its interface"
)]
#![expect(
    clippy::as_conversions,
    reason = "sizes and families of the C interface"
)]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ptr;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use nix::libc;

/// The longest that one name may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The addresses of `host`: of an address itself, of a name what `/etc/hosts` says, otherwise what the name servers of
/// `/etc/resolv.conf` say. Both files are read anew each time. Blocks; inside of a runtime, too.
///
/// # Errors
/// [`io::ErrorKind::NotFound`] if there is no such name, another kind if nobody could be asked.
pub fn resolve(host: &str) -> io::Result<Vec<IpAddr>> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    let host = host.to_owned();
    // A thread of its own: a runtime cannot be started within another.
    let resolver = std::thread::Builder::new()
        .name(String::from("names"))
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let asked = async { tokio::time::timeout(PATIENCE, ask(&host)).await };
            runtime
                .block_on(asked)
                .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        })?;
    resolver
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("the resolver failed")))
}

async fn ask(host: &str) -> io::Result<Vec<IpAddr>> {
    let resolver = match TokioResolver::builder_tokio() {
        Ok(builder) => builder.build(),
        // Without name servers (no resolv.conf, as in an empty root) only /etc/hosts can answer.
        Err(_) => TokioResolver::builder_with_config(
            ResolverConfig::default(),
            TokioRuntimeProvider::default(),
        )
        .with_options(ResolverOpts::default())
        .build(),
    };
    let found = resolver.map_err(io::Error::other)?.lookup_ip(host).await;
    match found {
        Ok(found) => Ok(found.iter().collect()),
        Err(error) if error.is_no_records_found() || error.is_nx_domain() => {
            Err(io::Error::new(io::ErrorKind::NotFound, error.to_string()))
        }
        Err(error) => Err(io::Error::other(error.to_string())),
    }
}

/// One result and the address it points to, as one allocation.
#[repr(C)]
struct Entry {
    info: libc::addrinfo,
    address: Address,
}

#[repr(C)]
union Address {
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

/// What the caller wants.
struct Wanted {
    family: c_int,
    kind: c_int,
    protocol: c_int,
    flags: c_int,
}

/// `getaddrinfo(3)`. Services are port numbers; names of services are not looked up.
///
/// # Safety
/// As for the C function: strings end with a zero byte, `result` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getaddrinfo(
    node: *const c_char,
    service: *const c_char,
    hints: *const libc::addrinfo,
    result: *mut *mut libc::addrinfo,
) -> c_int {
    // SAFETY: the caller gives null or what the C interface says.
    let (node, service, hints) = unsafe {
        (
            (!node.is_null()).then(|| CStr::from_ptr(node)),
            (!service.is_null()).then(|| CStr::from_ptr(service)),
            hints.as_ref(),
        )
    };
    let wanted = hints.map_or(
        Wanted {
            family: libc::AF_UNSPEC,
            kind: 0,
            protocol: 0,
            flags: 0,
        },
        |hints| Wanted {
            family: hints.ai_family,
            kind: hints.ai_socktype,
            protocol: hints.ai_protocol,
            flags: hints.ai_flags,
        },
    );
    match answer(node, service, &wanted) {
        Ok(addresses) => {
            let list = list(&addresses, &wanted);
            // SAFETY: the caller's place for the result.
            unsafe { *result = list };
            0
        }
        Err(code) => code,
    }
}

/// `freeaddrinfo(3)`.
///
/// # Safety
/// `list` comes from [`getaddrinfo`] and is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn freeaddrinfo(list: *mut libc::addrinfo) {
    let mut next = list;
    while !next.is_null() {
        // SAFETY: each element is the beginning of an `Entry` that `list` has leaked.
        let entry = unsafe { Box::from_raw(next.cast::<Entry>()) };
        next = entry.info.ai_next;
    }
}

fn answer(
    node: Option<&CStr>,
    service: Option<&CStr>,
    wanted: &Wanted,
) -> Result<Vec<SocketAddr>, c_int> {
    let port = match service.map(CStr::to_str) {
        None => 0,
        Some(text) => text
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or(libc::EAI_SERVICE)?,
    };
    let found = match node.map(CStr::to_str) {
        None if service.is_none() => return Err(libc::EAI_NONAME),
        None if wanted.flags & libc::AI_PASSIVE != 0 => vec![
            IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        ],
        None => vec![
            IpAddr::V6(Ipv6Addr::LOCALHOST),
            IpAddr::V4(Ipv4Addr::LOCALHOST),
        ],
        Some(Err(_)) => return Err(libc::EAI_NONAME),
        Some(Ok(host)) if wanted.flags & libc::AI_NUMERICHOST != 0 => {
            vec![host.parse().map_err(|_| libc::EAI_NONAME)?]
        }
        Some(Ok(host)) => resolve(host).map_err(|error| {
            if error.kind() == io::ErrorKind::NotFound {
                libc::EAI_NONAME
            } else {
                libc::EAI_AGAIN
            }
        })?,
    };
    let fits = |address: &IpAddr| match wanted.family {
        libc::AF_INET => address.is_ipv4(),
        libc::AF_INET6 => address.is_ipv6(),
        _ => true,
    };
    let found: Vec<_> = found
        .into_iter()
        .filter(fits)
        .map(|address| SocketAddr::new(address, port))
        .collect();
    if found.is_empty() {
        return Err(libc::EAI_NONAME);
    }
    Ok(found)
}

/// The list of the C interface; [`freeaddrinfo`] takes it back.
fn list(addresses: &[SocketAddr], wanted: &Wanted) -> *mut libc::addrinfo {
    let kind = if wanted.kind == 0 {
        libc::SOCK_STREAM
    } else {
        wanted.kind
    };
    let mut next = ptr::null_mut();
    for address in addresses.iter().rev() {
        let (family, size, address) = match address {
            SocketAddr::V4(v4) => (
                libc::AF_INET,
                size_of::<libc::sockaddr_in>(),
                Address {
                    v4: libc::sockaddr_in {
                        sin_family: libc::AF_INET as libc::sa_family_t,
                        sin_port: v4.port().to_be(),
                        sin_addr: libc::in_addr {
                            s_addr: u32::from_ne_bytes(v4.ip().octets()),
                        },
                        sin_zero: [0; 8],
                    },
                },
            ),
            SocketAddr::V6(v6) => (
                libc::AF_INET6,
                size_of::<libc::sockaddr_in6>(),
                Address {
                    v6: libc::sockaddr_in6 {
                        sin6_family: libc::AF_INET6 as libc::sa_family_t,
                        sin6_port: v6.port().to_be(),
                        sin6_flowinfo: v6.flowinfo(),
                        sin6_addr: libc::in6_addr {
                            s6_addr: v6.ip().octets(),
                        },
                        sin6_scope_id: v6.scope_id(),
                    },
                },
            ),
        };
        let entry = Box::into_raw(Box::new(Entry {
            info: libc::addrinfo {
                ai_flags: 0,
                ai_family: family,
                ai_socktype: kind,
                ai_protocol: wanted.protocol,
                ai_addrlen: size as libc::socklen_t,
                ai_addr: ptr::null_mut(),
                ai_canonname: ptr::null_mut(),
                ai_next: next,
            },
            address,
        }));
        // SAFETY: `entry` was leaked above and nobody else has it.
        unsafe { (*entry).info.ai_addr = (&raw mut (*entry).address).cast() };
        next = entry.cast();
    }
    next
}

/// Defines lookups that find nobody: those that write a result through their last argument, and those that return it.
macro_rules! nobody {
    ($($name:ident($($argument:ident: $kind:ty),*) -> null;)*) => {$(
        /// Finds nobody.
        #[unsafe(no_mangle)]
        pub extern "C" fn $name($($argument: $kind),*) -> *mut c_void {
            $(let _ = $argument;)*
            ptr::null_mut()
        }
    )*};
    ($($name:ident($($argument:ident: $kind:ty),*) -> result;)*) => {$(
        /// Finds nobody.
        ///
        /// # Safety
        /// As for the C function: `result` can be written.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($argument: $kind,)* result: *mut *mut c_void) -> c_int {
            $(let _ = $argument;)*
            // SAFETY: the caller's place for the result.
            unsafe { *result = ptr::null_mut() };
            0
        }
    )*};
    ($($name:ident($($argument:ident: $kind:ty),*) -> $code:expr;)*) => {$(
        /// Finds nobody.
        #[unsafe(no_mangle)]
        pub extern "C" fn $name($($argument: $kind),*) -> c_int {
            $(let _ = $argument;)*
            $code
        }
    )*};
}

nobody! {
    getpwnam(name: *const c_char) -> null;
    getpwuid(id: libc::uid_t) -> null;
    getgrnam(name: *const c_char) -> null;
    getgrgid(id: libc::gid_t) -> null;
    gethostbyname(name: *const c_char) -> null;
}
nobody! {
    getpwnam_r(name: *const c_char, entry: *mut c_void, buffer: *mut c_char, size: usize) -> result;
    getpwuid_r(id: libc::uid_t, entry: *mut c_void, buffer: *mut c_char, size: usize) -> result;
    getgrnam_r(name: *const c_char, entry: *mut c_void, buffer: *mut c_char, size: usize) -> result;
    getgrgid_r(id: libc::gid_t, entry: *mut c_void, buffer: *mut c_char, size: usize) -> result;
}
nobody! {
    getgrouplist(name: *const c_char, group: libc::gid_t, groups: *mut libc::gid_t, count: *mut c_int) -> -1;
    initgroups(name: *const c_char, group: libc::gid_t) -> -1;
    getnameinfo(
        address: *const c_void, length: libc::socklen_t, host: *mut c_char, host_size: libc::socklen_t,
        service: *mut c_char, service_size: libc::socklen_t, flags: c_int
    ) -> libc::EAI_NONAME;
}

#[cfg(test)]
mod tests {
    use std::net::ToSocketAddrs;

    use super::*;

    #[test]
    fn addresses_and_the_local_name_need_no_server() {
        assert_eq!(
            resolve("192.0.2.7").unwrap(),
            [IpAddr::from([192, 0, 2, 7])]
        );
        assert_eq!(resolve("::1").unwrap(), [IpAddr::V6(Ipv6Addr::LOCALHOST)]);
        let local = resolve("localhost").unwrap();
        assert!(local.iter().all(IpAddr::is_loopback), "{local:?}");
        assert!(!local.is_empty());
    }

    #[tokio::test]
    async fn the_standard_library_and_the_runtime_are_answered_from_here() {
        let found: Vec<SocketAddr> = ("localhost", 80).to_socket_addrs().unwrap().collect();
        assert!(
            found
                .iter()
                .all(|address| address.ip().is_loopback() && address.port() == 80)
        );
        let found: Vec<SocketAddr> = tokio::net::lookup_host("localhost:81")
            .await
            .unwrap()
            .collect();
        assert!(
            found
                .iter()
                .all(|address| address.ip().is_loopback() && address.port() == 81)
        );
        assert!(!found.is_empty());
        // Nobody is found, though this account is in the files.
        assert!(nix::unistd::User::from_name("root").unwrap().is_none());
        assert!(nix::unistd::Group::from_gid(0.into()).unwrap().is_none());
    }

    #[test]
    fn the_c_interface_gives_lists_that_it_takes_back() {
        let mut hints: libc::addrinfo = unsafe { std::mem::zeroed() };
        hints.ai_family = libc::AF_INET6;
        hints.ai_socktype = libc::SOCK_DGRAM;
        let mut found = ptr::null_mut();
        let code = unsafe {
            getaddrinfo(
                c"2001:db8::5".as_ptr(),
                c"53".as_ptr(),
                &raw const hints,
                &raw mut found,
            )
        };
        assert_eq!(code, 0);
        let first = unsafe { &*found };
        assert_eq!(
            (first.ai_family, first.ai_socktype),
            (libc::AF_INET6, libc::SOCK_DGRAM)
        );
        assert_eq!(first.ai_addrlen as usize, size_of::<libc::sockaddr_in6>());
        let address = unsafe { &*first.ai_addr.cast::<libc::sockaddr_in6>() };
        assert_eq!(u16::from_be(address.sin6_port), 53);
        assert_eq!(
            Ipv6Addr::from(address.sin6_addr.s6_addr),
            "2001:db8::5".parse::<Ipv6Addr>().unwrap()
        );
        assert!(first.ai_next.is_null());
        unsafe { freeaddrinfo(found) };
    }

    #[test]
    fn what_is_no_name_service_or_family_has_its_code() {
        let wanted = |family, flags| Wanted {
            family,
            kind: 0,
            protocol: 0,
            flags,
        };
        let any = wanted(libc::AF_UNSPEC, 0);
        assert_eq!(answer(None, None, &any), Err(libc::EAI_NONAME));
        assert_eq!(
            answer(Some(c"127.0.0.1"), Some(c"https"), &any),
            Err(libc::EAI_SERVICE)
        );
        assert_eq!(
            answer(Some(c"127.0.0.1"), None, &wanted(libc::AF_INET6, 0)),
            Err(libc::EAI_NONAME)
        );
        assert_eq!(
            answer(Some(c"localhost"), None, &wanted(0, libc::AI_NUMERICHOST)),
            Err(libc::EAI_NONAME)
        );
        assert_eq!(answer(Some(c"\xff"), None, &any), Err(libc::EAI_NONAME));
        let listening =
            answer(None, Some(c"22"), &wanted(libc::AF_INET, libc::AI_PASSIVE)).unwrap();
        assert_eq!(listening, ["0.0.0.0:22".parse().unwrap()]);
    }
}
