// The one stream. Work is done when it is put there, except that a copy out of page-locked memory, and all that comes after it,
// waits: until somebody waits for it, or for what comes later. So memory that is written before the card has read it is read
// wrong.
#pragma once

struct Waiting {
    Work work;
    // Host memory that it reads, or null.
    const void *from;
};
static std::deque<Waiting> waiting;
// How much work has waited so far, and how much of that is done.
static long queued, done;

// What an event comes after, in the count of `queued`.
struct Event {
    long after = 0;
};

// The most work that waits. A step is some 600.
static const size_t MOST = 400;

static int settle(long until = queued) {
    for (; done < until; done++) {
        waiting.front().work();
        waiting.pop_front();
    }
    return 0;
}

static void wait(Waiting one) {
    waiting.push_back(one);
    queued++;
    if (waiting.size() > MOST) settle();
}

static void submit(Work work) {
    if (recording) recording->work.push_back(work);
    else if (waiting.empty()) work();
    else wait({work, nullptr});
}

// Page-locked memory: where each begins, and its bytes.
static std::map<const char *, size_t> locked;

// The beginning of the page-locked memory that an address is in, or null.
static const char *page_locked(const void *address) {
    const char *const at = static_cast<const char *>(address);
    auto next = locked.upper_bound(at);
    if (next == locked.begin()) return nullptr;
    --next;
    return at < next->first + next->second ? next->first : nullptr;
}
