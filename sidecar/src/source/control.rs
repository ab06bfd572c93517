//! What the reader is told, and when it obeys.

use super::Consumer;
use pilotfish_pipeline::{Slot, SlotConfig};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering, fence},
    mpsc,
};

/// Messages to the reader.
#[derive(Debug)]
pub enum Control {
    /// Settings of a container, obeyed before the next record: whoever enables a slot in the kernel after sending
    /// this knows that every record of the slot meets them.
    Configure(Slot, Box<SlotConfig>),
    /// A container ended; its slot will be used again. Obeyed after the drain that is going on, so that its last
    /// records are read, or before the next [`Self::Configure`] of the slot.
    Forget(Slot),
    /// Drain once more, finish, end.
    Stop,
}

/// The reader is gone.
#[derive(Debug, thiserror::Error)]
#[error("the ring reader has ended")]
pub struct ReaderGone;

/// The way to the reader.
#[derive(Clone, Debug)]
pub struct ControlSender {
    messages: mpsc::Sender<Control>,
    sent: Arc<AtomicU64>,
}

/// The reader's end.
#[derive(Debug)]
pub struct Mailbox {
    messages: mpsc::Receiver<Control>,
    /// Messages sent; one load of it per record stands for a look into the channel.
    sent: Arc<AtomicU64>,
    seen: u64,
    /// Containers that ended, until the drain that is going on is over: at most one entry per slot.
    ended: Vec<Slot>,
    stop: bool,
}

/// A way to a reader, and its end.
pub fn control() -> (ControlSender, Mailbox) {
    let (sender, messages) = mpsc::channel();
    let sent = Arc::new(AtomicU64::new(0));
    let mailbox = Mailbox {
        messages,
        sent: Arc::clone(&sent),
        seen: 0,
        ended: Vec::new(),
        stop: false,
    };
    (
        ControlSender {
            messages: sender,
            sent,
        },
        mailbox,
    )
}

impl ControlSender {
    /// Sends without waiting. A record whose cause comes after this finds the message sent.
    pub fn send(&self, message: Control) -> Result<(), ReaderGone> {
        self.messages.send(message).map_err(|_| ReaderGone)?;
        self.sent.fetch_add(1, Ordering::Release);
        // The cause is a store into a map of the kernel, which release alone does not keep behind the count.
        fence(Ordering::SeqCst);
        Ok(())
    }
}

impl Mailbox {
    /// To be called before each record: obeys the settings that were sent before it came.
    pub(super) fn before_record(&mut self, consumer: &mut impl Consumer) {
        let sent = self.sent.load(Ordering::Acquire);
        if sent != self.seen {
            self.seen = sent;
            self.read(consumer);
        }
    }

    /// To be called after each drain; true when the reader has to stop.
    pub(super) fn after_drain(&mut self, consumer: &mut impl Consumer) -> bool {
        self.read(consumer);
        for slot in self.ended.drain(..) {
            consumer.forget(slot);
        }
        self.stop
    }

    fn read(&mut self, consumer: &mut impl Consumer) {
        while !self.stop {
            match self.messages.try_recv() {
                Ok(Control::Configure(slot, config)) => {
                    if let Some(index) = self.ended.iter().position(|&ended| ended == slot) {
                        self.ended.remove(index);
                        consumer.forget(slot);
                    }
                    consumer.configure(slot, &config);
                }
                Ok(Control::Forget(slot)) if self.ended.contains(&slot) => {}
                Ok(Control::Forget(slot)) => self.ended.push(slot),
                Ok(Control::Stop) | Err(mpsc::TryRecvError::Disconnected) => self.stop = true,
                Err(mpsc::TryRecvError::Empty) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Control, ControlSender, control};
    use crate::source::Consumer;
    use pilotfish_pipeline::{Record, Slot, SlotConfig};
    use std::{
        sync::{
            Arc,
            atomic::{AtomicU32, Ordering},
        },
        thread,
    };

    /// Notes what it is told.
    #[derive(Default)]
    struct Told(Vec<String>);

    impl Consumer for Told {
        fn record(&mut self, _: &Record<'_>, _: &[u8]) {}
        fn drained(&mut self) {}
        fn tick(&mut self, _: u64, _: i64) {}
        fn configure(&mut self, slot: Slot, config: &SlotConfig) {
            self.0
                .push(format!("configure {} {:?}", slot.0, config.routes));
        }
        fn forget(&mut self, slot: Slot) {
            self.0.push(format!("forget {}", slot.0));
        }
        fn finish(&mut self) {}
    }

    fn configure(sender: &ControlSender, slot: u32, route: &str) {
        let config = SlotConfig {
            routes: vec![route.to_owned()],
            ..SlotConfig::default()
        };
        sender
            .send(Control::Configure(Slot(slot), Box::new(config)))
            .expect("the mailbox is there");
    }

    #[test]
    fn settings_are_obeyed_before_the_next_record_and_ends_after_the_drain() {
        let (sender, mut mailbox) = control();
        let mut told = Told::default();
        mailbox.before_record(&mut told);
        assert!(told.0.is_empty());
        sender.send(Control::Forget(Slot(2))).expect("sent");
        configure(&sender, 1, "/a");
        configure(&sender, 1, "/b");
        mailbox.before_record(&mut told);
        assert_eq!(told.0, [r#"configure 1 ["/a"]"#, r#"configure 1 ["/b"]"#]);
        mailbox.before_record(&mut told);
        assert!(!mailbox.after_drain(&mut told));
        assert_eq!(told.0.get(2..), Some(&["forget 2".to_owned()][..]));
        assert!(!mailbox.after_drain(&mut told));
        assert_eq!(told.0.len(), 3);
    }

    #[test]
    fn a_slot_is_forgotten_before_its_next_container_is_configured() {
        let (sender, mut mailbox) = control();
        let mut told = Told::default();
        for slot in [1, 2, 1] {
            sender.send(Control::Forget(Slot(slot))).expect("sent");
        }
        configure(&sender, 1, "/new");
        mailbox.before_record(&mut told);
        assert_eq!(told.0, ["forget 1", r#"configure 1 ["/new"]"#]);
        mailbox.after_drain(&mut told);
        assert_eq!(told.0.last().map(String::as_str), Some("forget 2"));
        assert_eq!(told.0.len(), 3);
    }

    #[test]
    fn stop_and_the_loss_of_all_senders_end_the_reader() {
        let (sender, mut mailbox) = control();
        let mut told = Told::default();
        sender.send(Control::Forget(Slot(1))).expect("sent");
        sender.send(Control::Stop).expect("sent");
        mailbox.before_record(&mut told);
        assert!(told.0.is_empty());
        assert!(mailbox.after_drain(&mut told));
        assert_eq!(told.0, ["forget 1"]);

        let (sender, mut mailbox) = control();
        assert!(!mailbox.after_drain(&mut told));
        drop(sender);
        assert!(mailbox.after_drain(&mut told));
    }

    #[test]
    fn nothing_can_be_sent_to_a_reader_that_is_gone() {
        let (sender, mailbox) = control();
        drop(mailbox);
        assert!(sender.send(Control::Stop).is_err());
    }

    /// The flag stands for the slot that is enabled in the kernel and the record that this causes.
    #[test]
    fn what_was_sent_before_a_cause_is_obeyed_before_its_record() {
        const SLOTS: u32 = 500;
        let (sender, mut mailbox) = control();
        let enabled = Arc::new(AtomicU32::new(0));
        let writer = thread::spawn({
            let enabled = Arc::clone(&enabled);
            move || {
                for slot in 1..=SLOTS {
                    configure(&sender, slot, "/a");
                    enabled.store(slot, Ordering::Release);
                }
                sender
            }
        });
        let mut told = Told::default();
        loop {
            let slot = enabled.load(Ordering::Acquire);
            mailbox.before_record(&mut told);
            assert!(told.0.len() >= slot as usize, "{} of {slot}", told.0.len());
            if slot == SLOTS {
                break;
            }
        }
        drop(writer.join().expect("the other thread sends only"));
        assert_eq!(told.0.len(), SLOTS as usize);
    }
}
