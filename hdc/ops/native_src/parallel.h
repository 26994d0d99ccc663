// Work on XLA's threads, and memory that a thread keeps.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>

#include "kernels.h"
#include "xla/ffi/api/ffi.h"

namespace hdc {

// Memory that a thread keeps, so that it is mapped once; several at a time by slot.
inline float* scratch(int slot, size_t floats) {
  struct Kept {
    float* data = nullptr;
    size_t size = 0;
    ~Kept() { std::free(data); }
  };
  thread_local Kept kept[6];
  Kept& one = kept[slot];
  if (one.size < floats) {
    std::free(one.data);
    one.size = (floats + 15) / 16 * 16;
    one.data = static_cast<float*>(std::aligned_alloc(64, one.size * sizeof(float)));
    if (!one.data) std::abort();  // out of memory: nothing sensible is left to do
  }
  return one.data;
}

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// Runs f(0) to f(tasks - 1) on the caller and on such threads of the pool as have time. The caller waits
// only for tasks that a thread has begun, so calls that wait for one another cannot stand still.
template <typename F>
void parallel(xla::ffi::ThreadPool& pool, int tasks, const F& f) {
  struct State {
    std::atomic<int> next{0}, done{0};
    std::mutex mutex;
    std::condition_variable all;
  };
  auto state = std::make_shared<State>();
  auto work = [state, tasks, &f] {
    for (int i; (i = state->next++) < tasks;) {
      f(i);
      if (++state->done == tasks) {
        std::lock_guard<std::mutex> lock(state->mutex);
        state->all.notify_all();
      }
    }
  };
  int others = std::min<int>(pool.num_threads(), tasks) - 1;
  for (int i = 0; i < others; ++i) pool.Schedule(std::function<void()>(work));
  work();
  // The others end within moments, mostly: a wait in the kernel would take longer than that.
  for (int i = 0; i < 4000 && state->done != tasks; ++i) pause();
  std::unique_lock<std::mutex> lock(state->mutex);
  state->all.wait(lock, [&] { return state->done == tasks; });
}

}  // namespace hdc
