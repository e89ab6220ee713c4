//! Configures the C library once, before the program starts a thread. The only file that may use `unsafe`: glibc has
//! these two switches as functions alone. Other C libraries need neither.
#![cfg_attr(target_env = "gnu", expect(unsafe_code, reason = "two functions of glibc"))]

/// The variable by which an operator chooses the number of arenas: mallopt(3).
#[cfg(target_env = "gnu")]
const ARENAS_VARIABLE: &str = "MALLOC_ARENA_MAX";
/// Arenas under a limit on the address space. The threads then contend for them, which costs less than the network
/// does.
#[cfg(target_env = "gnu")]
const LIMITED_ARENAS: std::ffi::c_int = 2;
/// `M_ARENA_MAX` of malloc.h.
#[cfg(target_env = "gnu")]
const M_ARENA_MAX: std::ffi::c_int = -8;

#[cfg(target_env = "gnu")]
unsafe extern "C" {
    safe fn mallopt(parameter: std::ffi::c_int, value: std::ffi::c_int) -> std::ffi::c_int;
    #[cfg(target_feature = "crt-static")]
    fn __nss_configure_lookup(database: *const std::ffi::c_char, services: *const std::ffi::c_char) -> std::ffi::c_int;
}

/// Limits malloc's arenas if the address space is limited, and makes a static binary resolve host names by `/etc/hosts`
/// and DNS alone. Call it before the program starts a thread or resolves a name.
#[cfg(target_env = "gnu")]
pub fn configure() {
    // Each arena reserves 64 MiB, eight for each core, and an allocation that finds no room ends the process.
    if super::limits::address_space() < u64::MAX && std::env::var_os(ARENAS_VARIABLE).is_none() {
        mallopt(M_ARENA_MAX, LIMITED_ARENAS);
    }
    // A static glibc loads the NSS modules that /etc/nsswitch.conf names. Modules of another glibc release end the
    // process by SIGFPE or SIGABRT. `files` and `dns` are built in, and honour search domains and `ndots`.
    #[cfg(target_feature = "crt-static")]
    // SAFETY: both arguments are strings that end in NUL and live as long as the program. No other thread exists that
    // reads the configuration.
    unsafe {
        __nss_configure_lookup(c"hosts".as_ptr(), c"files dns".as_ptr());
    }
}

/// Does nothing: this C library has no arenas and loads no modules.
#[cfg(not(target_env = "gnu"))]
pub fn configure() {}
