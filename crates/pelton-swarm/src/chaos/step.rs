//! One step: what is done, to what, as one random number says.

use std::time::Duration;

use pelton_driver::{ListenOptions, OpenOptions, Submission};

use super::flow::Model;
use super::op::What;
use super::{Chaos, Desc, Dice, Role};
use crate::pattern::mix;

type Do = fn(&Chaos, usize, &Dice);

/// What a step may be, and how often.
const STEPS: &[(&str, usize, Do)] = &[
    ("make a pair", 6, Chaos::make_pair),
    ("listen", 3, Chaos::listen),
    ("connect", 8, Chaos::connect),
    ("make two datagram sockets", 2, Chaos::make_datagrams),
    ("open a file", 2, Chaos::open_file),
    ("submit", 60, Chaos::submit_any),
    ("submit what needs no descriptor", 6, Chaos::submit_own),
    ("take", 40, Chaos::take_any),
    ("take an item", 8, Chaos::take_item),
    ("give up", 6, Chaos::give_up_any),
    ("cancel", 6, Chaos::cancel_any),
    ("cancel by descriptor", 2, Chaos::cancel_descriptor),
    ("close", 4, Chaos::close_any),
    ("drop a lease", 12, Chaos::drop_any_lease),
    ("notify", 3, Chaos::notify),
    ("fill the table", 1, Chaos::fill_table),
    ("detach", 3, Chaos::detach_any),
    ("attach", 5, Chaos::attach_any),
    ("tick", 36, Chaos::tick_some),
];

fn which(word: u64) -> usize {
    let all: usize = STEPS.iter().map(|step| step.1).sum();
    let mut left = mix(word ^ 0x57E9) as usize % all;
    for (at, step) in STEPS.iter().enumerate() {
        if left < step.1 {
            return at;
        }
        left -= step.1;
    }
    0
}

impl Chaos {
    pub(super) fn step(&self) {
        let word = self.world.choose("step", 0, 1 << 40, |word| STEPS[which(word)].0.into());
        if word == 0 || self.failed() {
            return;
        }
        let dice = Dice::new(word);
        let side = dice.below(self.sides.len());
        (STEPS[which(word)].2)(self, side, &dice);
    }

    fn make_pair(&self, side: usize, _: &Dice) {
        let Ok((one, other)) = self.with(side, |driver| driver.stream_pair()) else { return };
        // No address makes such a number.
        let conn = Some(mix(self.fresh() | 1 << 63));
        self.add(side, one, Role::Stream { conn, client: true, pair: true });
        self.add(side, other, Role::Stream { conn, client: false, pair: true });
    }

    fn listen(&self, side: usize, dice: &Dice) {
        let listeners = self.sides[side]
            .descs
            .borrow()
            .iter()
            .filter(|desc| desc.open && matches!(desc.role, Role::Listener(_)))
            .count();
        if listeners >= 2 {
            return;
        }
        let address = (self.sides[side].ip, 0).into();
        let backlog = [1, 2, 64][dice.below(3)];
        let options = ListenOptions { backlog, ..ListenOptions::default() };
        let Ok(fd) = self.with(side, |driver| driver.listen(address, options)) else { return };
        match self.with(side, |driver| driver.local_addr(fd)) {
            Ok(address) => {
                self.add(side, fd, Role::Listener(address));
            }
            Err(error) => self.wrong(format!("a listener has no address: {error}")),
        }
    }

    fn connect(&self, side: usize, dice: &Dice) {
        let mut addresses = Vec::new();
        for at in &self.sides {
            addresses.extend(at.descs.borrow().iter().filter_map(|desc| match desc.role {
                Role::Listener(address) if desc.open => Some(address),
                _ => None,
            }));
        }
        if dice.one_in(12) {
            // Where nobody listens.
            addresses = vec![(self.sides[0].ip, 9).into()];
        }
        if addresses.is_empty() {
            return self.listen(side, dice);
        }
        let to = addresses[dice.below(addresses.len())];
        let Ok(fd) = self.with(side, |driver| driver.stream_socket(to)) else { return };
        let role = Role::Stream { conn: None, client: true, pair: false };
        let desc = self.add(side, fd, role);
        self.submit(side, dice, Some(desc), What::Connect, vec![], Submission::connect(fd, to));
    }

    fn make_datagrams(&self, side: usize, dice: &Dice) {
        let sides = [side, dice.below(self.sides.len())];
        let mut made = Vec::new();
        for side in sides {
            let bind = (self.sides[side].ip, 0).into();
            let Ok(fd) = self.with(side, |driver| driver.datagram_socket(bind)) else { break };
            made.push((side, fd, self.fresh()));
        }
        let [one, other] = made[..] else {
            for (side, fd, _) in made {
                self.with(side, |driver| driver.close(fd));
            }
            return;
        };
        for ((side, fd, own), (peer_side, peer_fd, peer)) in [(one, other), (other, one)] {
            let desc = self.add(side, fd, Role::Datagram { own, peer });
            let Ok(to) = self.with(peer_side, |driver| driver.local_addr(peer_fd)) else {
                continue;
            };
            self.submit(side, dice, Some(desc), What::Connect, vec![], Submission::connect(fd, to));
        }
    }

    fn open_file(&self, side: usize, dice: &Dice) {
        let elsewhere = self.sides[side].host != self.sides[0].host;
        let file = dice.below(2) + 2 * usize::from(elsewhere);
        let path = format!("/file{file}");
        let mut how = OpenOptions::new();
        how.read(true).write(true).create(true);
        let Ok(opened) = self.world.on_host(self.sides[side].host, || how.open(path)) else {
            return;
        };
        let Ok(fd) = self.with(side, |driver| driver.attach(opened)) else { return };
        while self.files.borrow().len() <= file {
            self.files.borrow_mut().push(Model::new());
        }
        self.add(side, fd, Role::File(file));
    }

    fn submit_any(&self, side: usize, dice: &Dice) {
        let descs = self.sides[side].descs.borrow();
        // The later ones rather, and closed ones seldom.
        let first = if dice.one_in(3) { 0 } else { descs.len().saturating_sub(8) };
        let mut among: Vec<usize> = (first..descs.len()).filter(|at| descs[*at].open).collect();
        if among.is_empty() || dice.one_in(40) {
            among = (0..descs.len()).collect();
        }
        drop(descs);
        if !among.is_empty() {
            let desc = among[dice.below(among.len())];
            self.submit_on(side, desc, dice);
        }
    }

    fn submit_own(&self, side: usize, dice: &Dice) {
        match dice.below(4) {
            0 => {
                self.submit(side, dice, None, What::Nop, vec![], Submission::nop());
            }
            1 => {
                self.submit(side, dice, None, What::Wake, vec![], Submission::wake());
            }
            _ => {
                let spans = [0, 1_000, 20_000, 1_000_000];
                let after = Duration::from_micros(dice.below(1 + spans[dice.below(4)]) as u64);
                let deadline = self.sides[side].driver.now() + after;
                let submission = Submission::timeout(deadline);
                self.submit(side, dice, None, What::Timer { deadline }, vec![], submission);
            }
        }
    }

    /// Some operation: one that is done, rather.
    fn some_op(&self, side: usize, dice: &Dice, done: bool) -> Option<usize> {
        let at = &self.sides[side];
        let ops = at.ops.borrow();
        let wanted: Vec<usize> = ops
            .iter()
            .filter(|(_, op)| !done || op.key.is_done(&at.driver))
            .map(|(token, _)| *token)
            .collect();
        (!wanted.is_empty()).then(|| wanted[dice.below(wanted.len())])
    }

    fn take_any(&self, side: usize, dice: &Dice) {
        let done = !dice.one_in(12);
        for _ in 0..1 + dice.below(3) {
            if let Some(token) = self.some_op(side, dice, done) {
                self.take(side, token, dice);
            }
        }
    }

    fn take_item(&self, side: usize, dice: &Dice) {
        let many: Vec<usize> = {
            let ops = self.sides[side].ops.borrow();
            let many = |what: &What| matches!(what, What::AcceptMany | What::ReceiveMany);
            ops.iter().filter(|(_, op)| many(&op.what)).map(|(token, _)| *token).collect()
        };
        if !many.is_empty() {
            let token = many[dice.below(many.len())];
            for _ in 0..1 + dice.below(3) {
                if !self.next_item(side, token) {
                    break;
                }
            }
        }
    }

    fn give_up_any(&self, side: usize, dice: &Dice) {
        let done = dice.one_in(6);
        if let Some(token) = self.some_op(side, dice, done) {
            self.give_up(side, token);
        }
    }

    fn cancel_any(&self, side: usize, dice: &Dice) {
        let Some(token) = self.some_op(side, dice, false) else { return };
        let at = &self.sides[side];
        let (id, done, close) = {
            let mut ops = at.ops.borrow_mut();
            let Some(op) = ops.get_mut(&token) else { return };
            let done = op.key.is_done(&at.driver);
            op.cancelled |= !done;
            (op.id, done, matches!(op.what, What::Close))
        };
        if dice.one_in(2) {
            let found = self.with(side, |driver| driver.cancel(id));
            if found == done && !close {
                self.wrong(format!("a cancel said {found} of an operation, done: {done}"));
            }
        } else {
            let what = What::Cancel { found: !done };
            self.submit(side, dice, None, what, vec![], Submission::cancel(id));
        }
    }

    fn some_desc(&self, side: usize, dice: &Dice) -> Option<usize> {
        let descs = self.sides[side].descs.borrow();
        let open: Vec<usize> = (0..descs.len()).filter(|at| descs[*at].open).collect();
        (!open.is_empty()).then(|| open[dice.below(open.len())])
    }

    /// From now on whatever is in flight on a descriptor may end as cancelled.
    fn cancels(&self, side: usize, desc: usize) {
        for op in self.sides[side].ops.borrow_mut().values_mut() {
            op.cancelled |= op.desc == Some(desc);
        }
    }

    fn cancel_descriptor(&self, side: usize, dice: &Dice) {
        let Some(desc) = self.some_desc(side, dice) else { return };
        let fd = self.sides[side].descs.borrow()[desc].fd;
        self.cancels(side, desc);
        let submission = Submission::cancel_fd(fd);
        self.submit(side, dice, Some(desc), What::CancelAll, vec![], submission);
    }

    fn close_any(&self, side: usize, dice: &Dice) {
        if let Some(desc) = self.some_desc(side, dice) {
            self.close(side, desc, dice);
        }
    }

    pub(super) fn close(&self, side: usize, desc: usize, dice: &Dice) {
        self.ends(side, desc);
        let fd = self.sides[side].descs.borrow()[desc].fd;
        self.say(|| format!("close {side}/{desc}"));
        self.cancels(side, desc);
        if dice.one_in(2) {
            let full =
                !self.submit(side, dice, Some(desc), What::Close, vec![], Submission::close(fd));
            if full && !self.sides[side].descs.borrow()[desc].open {
                return;
            }
        }
        self.with(side, |driver| driver.close(fd));
        self.sides[side].descs.borrow_mut()[desc].open = false;
        self.cancels(side, desc);
    }

    /// A descriptor that no driver held has been closed.
    pub(super) fn gone(&self, known: &Desc) {
        if let Role::Stream { conn: Some(conn), client, .. } = known.role {
            self.flow((conn, client), |flow| flow.ended = true);
        }
    }

    /// This end of a connection says that nothing more will come.
    fn ends(&self, side: usize, desc: usize) {
        if let Some(flow) = self.connection(side, desc) {
            self.flow(flow, |flow| flow.ended = true);
        }
    }

    fn drop_any_lease(&self, side: usize, dice: &Dice) {
        for _ in 0..1 + dice.below(3) {
            let kept = self.sides[side].leases.borrow().len();
            if kept > 0 {
                self.drop_lease(side, dice.below(kept));
            }
        }
    }

    /// More sockets than the table of descriptors has room for.
    fn fill_table(&self, side: usize, dice: &Dice) {
        if !dice.one_in(8) {
            return;
        }
        let like = std::net::SocketAddr::new(self.sides[side].ip, 1);
        let mut made = Vec::new();
        while let Ok(fd) = self.with(side, |driver| driver.stream_socket(like)) {
            made.push(fd);
            if made.len() > 256 {
                self.wrong("a table of 256 descriptors took more");
                break;
            }
        }
        self.with(side, |driver| made.into_iter().for_each(|fd| driver.close(fd)));
    }

    fn notify(&self, side: usize, _: &Dice) {
        let due = self.world.now() + Duration::from_millis(60);
        for op in self.sides[side].ops.borrow_mut().values_mut() {
            if matches!(op.what, What::Wake) {
                op.due.get_or_insert(due);
            }
        }
        if self.ticking.get() & (1 << side) == 0 {
            self.sides[side].notified.set(true);
        }
        if let Err(error) = self.sides[side].notifier.notify() {
            self.wrong(format!("a wake failed: {error}"));
        }
    }

    fn detach_any(&self, side: usize, dice: &Dice) {
        let Some(desc) = self.some_desc(side, dice) else { return };
        let at = &self.sides[side];
        let (mut busy, mut done) = (0, 0);
        for op in at.ops.borrow().values().filter(|op| op.desc == Some(desc)) {
            if op.key.is_done(&at.driver) { done += 1 } else { busy += 1 }
        }
        if done > 0 {
            return;
        }
        let orphans = at.driver.counters().orphans.get();
        // Its number goes with it; learn first whose it is.
        let _ = self.connection(side, desc);
        let known = at.descs.borrow()[desc].clone();
        match self.with(side, |driver| driver.detach(known.fd)) {
            Ok(descriptor) => {
                if busy > 0 {
                    self.wrong("a descriptor was detached with operations in flight");
                }
                at.descs.borrow_mut()[desc].open = false;
                at.detached.borrow_mut().push((descriptor, known));
            }
            Err(error) if busy == 0 && orphans == 0 => {
                self.wrong(format!("an idle descriptor could not be detached: {error}"));
            }
            Err(_) => {}
        }
    }

    fn attach_any(&self, side: usize, dice: &Dice) {
        let from = dice.below(self.sides.len());
        if self.sides[from].host != self.sides[side].host {
            return;
        }
        let left = self.sides[from].detached.borrow().len();
        if left == 0 {
            return;
        }
        let (descriptor, mut known) =
            self.sides[from].detached.borrow_mut().swap_remove(dice.below(left));
        if dice.one_in(2) {
            self.world.set_nonblocking(&descriptor);
        }
        let Ok(fd) = self.with(side, |driver| driver.attach(descriptor)) else {
            return self.gone(&known);
        };
        (known.fd, known.open) = (fd, true);
        self.sides[side].descs.borrow_mut().push(known);
    }

    fn tick_some(&self, side: usize, dice: &Dice) {
        if self.depth.get() > 0 {
            // Inside of a tick of its own it is refused; in the other driver's it is a tick like any other.
            let ticking = self.ticking.get();
            if ticking & (1 << side) != 0 {
                let tick = self.with(side, |driver| driver.tick(Some(Duration::ZERO), |_| {}));
                if tick.map_err(|error| error.kind()) != Err(std::io::ErrorKind::Deadlock) {
                    self.wrong("a tick inside of a tick was not refused");
                }
                return;
            }
        }
        let spans = [0, 0, 1_000, 5_000, 100_000];
        let timeout = spans[dice.below(spans.len())];
        self.tick(side, Duration::from_micros(timeout));
    }
}
