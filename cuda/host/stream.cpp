#include "stream.h"
#include <chrono>
#include <utility>

stream::stream() : thread_([this] { run(); }) {}

stream::~stream() { close(); }

uint64_t stream::queue(std::function<void()> work) {
  const std::lock_guard<std::mutex> lock(mutex_);
  waiting_.push_back(std::move(work));
  came_.notify_one();
  return ++queued_;
}

uint64_t stream::newest() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return queued_;
}

bool stream::is_done(uint64_t ticket) {
  const std::lock_guard<std::mutex> lock(mutex_);
  return done_ >= ticket;
}

bool stream::wait(uint64_t ticket, int ms) {
  std::unique_lock<std::mutex> lock(mutex_);
  return went_.wait_for(lock, std::chrono::milliseconds(ms), [&] { return done_ >= ticket; });
}

void stream::close() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    closing_ = true;
    waiting_.clear();
    came_.notify_one();
  }
  if (thread_.joinable()) thread_.join();
}

void stream::run() {
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    came_.wait(lock, [&] { return closing_ || !waiting_.empty(); });
    if (closing_) return;
    const std::function<void()> work = std::move(waiting_.front());
    waiting_.pop_front();
    lock.unlock();
    work();
    lock.lock();
    done_++;
    went_.notify_all();
  }
}
