/* Work in the order of its queueing, on a thread of its own: what a stream is to a GPU. */
#pragma once
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <stdint.h>

class stream {
 public:
  stream();
  ~stream();
  /* Returns a ticket: how many pieces of work have been queued so far. */
  uint64_t queue(std::function<void()> work);
  /* The newest ticket. */
  uint64_t newest();
  bool is_done(uint64_t ticket);
  /* False when `ms` pass before it is done. */
  bool wait(uint64_t ticket, int ms);
  /* Drops what has not begun, and ends the thread when what is running returns. */
  void close();

 private:
  void run();

  std::mutex mutex_;
  std::condition_variable came_, went_;
  std::deque<std::function<void()>> waiting_;
  uint64_t queued_ = 0, done_ = 0;
  bool closing_ = false;
  std::thread thread_; /* last: it uses all of the above */
};
