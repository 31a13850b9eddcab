// The guard of what belongs to one thread: it refuses a second one while one is inside.
#pragma once

#include <atomic>
#include <stdexcept>
#include <string>

namespace nowgraph {

class Busy {
 public:
  Busy(std::atomic_flag& flag, const char* what) : flag_(flag) {
    if (flag_.test_and_set(std::memory_order_acquire))
      throw std::runtime_error(std::string(what) + " belongs to one thread, and another one is in it");
  }
  ~Busy() { flag_.clear(std::memory_order_release); }
  Busy(const Busy&) = delete;
  Busy& operator=(const Busy&) = delete;

 private:
  std::atomic_flag& flag_;
};

}  // namespace nowgraph
