/*
 * A host of 130 CPUs in one thread, and the file that xentrace would write of it, on standard output.
 *
 * An IPI is noted; its handler runs as soon as some CPU waits in cpu_relax(), lowest target first.
 */

#include "stub.h"
#include <stdio.h>

#define RECORDS_BYTES 4096
#define CPU_CHANGE (2u << 28 | 0x1f003)

unsigned int current_cpu;
bool irqs_enabled = true;
cpumask_t cpu_online_map = { { ~0ul, ~0ul, 3 } };

#ifndef STUB_NO_TRACEBUFFER
bool tb_init_done = true;
#endif

static cpumask_t call_pending, flush_pending;
static uint64_t cycles = 1ull << 40;
static struct {
    unsigned char bytes[RECORDS_BYTES];
    unsigned int used;
} buffers[NR_CPUS];

static void put(const void *bytes, unsigned int count)
{
    assert(buffers[current_cpu].used + count <= RECORDS_BYTES);
    memcpy(buffers[current_cpu].bytes + buffers[current_cpu].used, bytes, count);
    buffers[current_cpu].used += count;
}

void record(uint32_t header, unsigned int bytes, const void *words)
{
    header |= bytes / 4 << 28;
    cycles += 10;
    put(&header, sizeof(header));
    put(&cycles, sizeof(cycles));
    put(words, bytes);
}

static void interrupt(unsigned int cpu, void (*handler)(void))
{
    unsigned int interrupted = current_cpu;
    bool enabled = irqs_enabled;

    current_cpu = cpu;
    irqs_enabled = false;
    handler();
    current_cpu = interrupted;
    irqs_enabled = enabled;
}

void cpu_relax(void)
{
    unsigned int cpu;

    for_each_cpu ( cpu, &call_pending )
    {
        cpumask_clear_cpu(cpu, &call_pending);
        interrupt(cpu, smp_call_function_interrupt);
    }
#ifdef LEGACY
    for_each_cpu ( cpu, &flush_pending )
    {
        cpumask_clear_cpu(cpu, &flush_pending);
        interrupt(cpu, invalidate_interrupt);
    }
#endif
}

void send_IPI_mask(const cpumask_t *mask, int vector)
{
    unsigned int cpu;

    for_each_cpu ( cpu, mask )
        if ( cpu != current_cpu )
            cpumask_set_cpu(cpu, vector == CALL_FUNCTION_VECTOR ? &call_pending : &flush_pending);
}

void smp_send_call_function_mask(const cpumask_t *mask)
{
    send_IPI_mask(mask, CALL_FUNCTION_VECTOR);
    if ( cpumask_test_cpu(current_cpu, mask) )
        interrupt(current_cpu, smp_call_function_interrupt);
}

void flush_area_local(const void *va, unsigned int flags)
{
    (void)va;
    (void)flags;
    cycles += 500;
}

static void work(void *info)
{
    cycles += *(unsigned int *)info;
}

static void call(unsigned int cpu, cpumask_t mask, void (*func)(void *info), int wait)
{
    static unsigned int cost = 1000;

    current_cpu = cpu;
    on_selected_cpus(&mask, func, &cost, wait);
}

static void flush(unsigned int cpu, cpumask_t mask, unsigned int flags)
{
    current_cpu = cpu;
    flush_area_mask(&mask, (void *)0xffff820012345000, flags);
}

#define CPUS(low, middle, high) ((cpumask_t){ { low, middle, high } })

int main(void)
{
    unsigned int cpu;

    call(0, CPUS(0x6, 0, 0), work, 1);
    call(0, CPUS(0x3, 0x1, 0x2), work, 1);
    call(3, CPUS(0x10, 0, 0), NULL, 1);
    call(3, CPUS(0, 0, 0), work, 1);
    call(5, CPUS(0x40, 0, 0), work, 0);
    call(5, CPUS(0xc0, 0, 0), work, 1);
    call(9, CPUS(0x400, 0, 0), work, 0);
    call(8, CPUS(0x400, 0, 0), work, 1);
    flush(2, CPUS(0xc, 0x40, 0), FLUSH_TLB | FLUSH_VA_VALID | 1);
    flush(2, CPUS(0x4, 0, 0), FLUSH_TLB);

    for ( cpu = 0; cpu < NR_CPUS; cpu++ )
    {
        uint32_t window[] = { CPU_CHANGE, cpu, buffers[cpu].used };

        if ( !buffers[cpu].used )
            continue;
        fwrite(window, sizeof(window), 1, stdout);
        fwrite(buffers[cpu].bytes, buffers[cpu].used, 1, stdout);
    }
    fprintf(stderr, "%lu\n", (unsigned long)work);
    return 0;
}
