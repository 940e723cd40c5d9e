/* As much of Xen's environment as the samples and smp_trace.h use: many CPUs, one thread. See host.c. */

#ifndef STUB_H
#define STUB_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define NR_CPUS 130
#define nr_cpu_ids 130u
#define BITS_PER_LONG 64
#define cf_check
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define ASSERT assert

/* CPUs: the one whose code runs; a handler runs on another one inside cpu_relax(). */

extern unsigned int current_cpu;
extern bool irqs_enabled;
#define smp_processor_id() current_cpu
#define local_irq_is_enabled() irqs_enabled
#define local_irq_save(flags) ((flags) = irqs_enabled, irqs_enabled = false)
#define local_irq_restore(flags) (irqs_enabled = (flags))
#define DEFINE_PER_CPU(type, name) __typeof__(type) per_cpu__##name[NR_CPUS]
#define per_cpu(name, cpu) per_cpu__##name[cpu]
#define this_cpu(name) per_cpu(name, current_cpu)
void cpu_relax(void);

/* Masks */

typedef struct {
    unsigned long bits[(NR_CPUS + BITS_PER_LONG - 1) / BITS_PER_LONG];
} cpumask_t;

extern cpumask_t cpu_online_map;
#define cpumask_bits(mask) ((mask)->bits)
#define for_each_cpu(cpu, mask) \
    for ( (cpu) = 0; (cpu) < nr_cpu_ids; (cpu)++ ) \
        if ( cpumask_test_cpu(cpu, mask) )

static inline bool cpumask_test_cpu(unsigned int cpu, const cpumask_t *mask)
{
    return mask->bits[cpu / BITS_PER_LONG] >> (cpu % BITS_PER_LONG) & 1;
}

static inline void cpumask_set_cpu(unsigned int cpu, cpumask_t *mask)
{
    mask->bits[cpu / BITS_PER_LONG] |= 1ul << (cpu % BITS_PER_LONG);
}

static inline void cpumask_clear_cpu(unsigned int cpu, cpumask_t *mask)
{
    mask->bits[cpu / BITS_PER_LONG] &= ~(1ul << (cpu % BITS_PER_LONG));
}

static inline unsigned int cpumask_weight(const cpumask_t *mask)
{
    unsigned int cpu, weight = 0;

    for_each_cpu ( cpu, mask )
        weight++;
    return weight;
}

static inline bool cpumask_empty(const cpumask_t *mask)
{
    return !cpumask_weight(mask);
}

static inline void cpumask_copy(cpumask_t *to, const cpumask_t *from)
{
    *to = *from;
}

static inline void cpumask_and(cpumask_t *to, const cpumask_t *one, const cpumask_t *other)
{
    for ( unsigned int i = 0; i < sizeof(to->bits) / sizeof(to->bits[0]); i++ )
        to->bits[i] = one->bits[i] & other->bits[i];
}

/* Locks: nobody else can hold one, but none may be taken twice. */

typedef struct {
    bool held;
} spinlock_t;

#define DEFINE_SPINLOCK(name) spinlock_t name

static inline void spin_lock(spinlock_t *lock)
{
    assert(!lock->held);
    lock->held = true;
}

static inline void spin_unlock(spinlock_t *lock)
{
    assert(lock->held);
    lock->held = false;
}

/* Calls and flushes */

#define INVALIDATE_TLB_VECTOR 0xfd
#define CALL_FUNCTION_VECTOR 0xfb
#define FLUSH_TLB 0x100
#define FLUSH_VA_VALID 0x800
#define FLUSH_VCPU_STATE 0x1000
#define perfc_incr(counter) ((void)0)
#define ack_APIC_irq() ((void)0)
void flush_area_local(const void *va, unsigned int flags);
void send_IPI_mask(const cpumask_t *mask, int vector);
void smp_send_call_function_mask(const cpumask_t *mask);
void on_selected_cpus(const cpumask_t *selected, void (*func)(void *info), void *info, int wait);
void smp_call_function_interrupt(void);
void flush_area_mask(const cpumask_t *mask, const void *va, unsigned int flags);
void invalidate_interrupt(void);

/* Tracing, in the three forms that a Xen may have it */

#define TRC_HD_CYCLE_FLAG (1ul << 31)
void record(uint32_t header, unsigned int bytes, const void *words);

#if defined(STUB_NO_TRACEBUFFER)
#define tb_init_done false
#else
extern bool tb_init_done;
#endif

#if defined(STUB_TRACE_VAR)
static inline void trace_var(uint32_t event, bool cycles, unsigned int bytes, const void *words)
{
    if ( tb_init_done )
        record(event | (cycles ? TRC_HD_CYCLE_FLAG : 0), bytes, words);
}
#else
#define TRACE_TIME(event, ...) \
    do { \
        if ( tb_init_done ) \
        { \
            uint32_t given[] = { __VA_ARGS__ }; \
            record((event) | TRC_HD_CYCLE_FLAG, sizeof(given), given); \
        } \
    } while ( 0 )
#endif

#endif /* STUB_H */
