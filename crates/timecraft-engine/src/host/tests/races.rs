//! Names that change under a resolution's feet.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::*;

/// How long the racer races. Longer finds no more: the kernel is what is trusted here.
const RACE: Duration = Duration::from_secs(1);

#[test]
fn a_racer_can_not_lead_a_path_outside() {
    let mut world = World::new();
    let (rw, outside) = (world.path("rw"), world.path("outside"));
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("file"), "secret").unwrap();
    std::fs::create_dir(rw.join("racing")).unwrap();
    std::fs::write(rw.join("racing/file"), "inside").unwrap();
    let before = world.snapshot().into_iter().filter(|(path, _)| path.starts_with(&outside)).collect::<Vec<_>>();
    let done = Arc::new(AtomicBool::new(false));
    let racer = {
        let done = Arc::clone(&done);
        let (racing, parked) = (rw.join("racing"), rw.join("parked"));
        std::thread::spawn(move || {
            while !done.load(Ordering::Relaxed) {
                std::fs::rename(&racing, &parked).unwrap();
                std::os::unix::fs::symlink("../outside", &racing).unwrap();
                std::fs::remove_file(&racing).unwrap();
                std::fs::rename(&parked, &racing).unwrap();
            }
        })
    };
    let end = Instant::now() + RACE;
    let (mut opened, mut refused) = (0, 0);
    let guest = &mut world.guest;
    while Instant::now() < end {
        match guest.open(RW, "racing/file") {
            Ok(fd) => {
                assert_eq!(guest.read(fd, 100), Ok(b"inside".to_vec()));
                assert_eq!(guest.close(fd), Errno::Success);
                opened += 1;
            }
            Err(_) => refused += 1,
        }
        if let Ok(fd) = guest.open_with(RW, "racing/made", oflags::CREAT, (ALL, 0), 0) {
            assert_eq!(guest.close(fd), Errno::Success);
        }
        let _ = guest.at(Call::PathUnlinkFile, RW, b"racing/made");
        let _ = guest.at(Call::PathCreateDirectory, RW, b"racing/dir");
        let _ = guest.at(Call::PathRemoveDirectory, RW, b"racing/dir");
        let _ = guest.rename((RW, b"racing/file"), (RW, b"racing/renamed"));
        let _ = guest.rename((RW, b"racing/renamed"), (RW, b"racing/file"));
    }
    done.store(true, Ordering::Relaxed);
    racer.join().unwrap();
    assert!(opened > 0 && refused > 0, "no race: {opened} opened, {refused} refused");
    let after = world.snapshot().into_iter().filter(|(path, _)| path.starts_with(&outside)).collect::<Vec<_>>();
    assert_eq!(after, before);
}
